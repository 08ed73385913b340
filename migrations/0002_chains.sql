-- The register of the audit log: one row for each chain, which is one isolate's log, with its newest signed checkpoint.
-- Numbers are given out without gaps, and stand in what is signed: a gap is a row that somebody has deleted.
CREATE TABLE chains (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  chain TEXT NOT NULL UNIQUE,
  opened_at INTEGER NOT NULL,
  keys TEXT NOT NULL,
  position INTEGER NOT NULL,
  document TEXT NOT NULL,
  key TEXT NOT NULL,
  signature TEXT NOT NULL
);
