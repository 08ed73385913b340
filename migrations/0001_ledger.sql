-- The ledger: which bundle is in force, one signed document for each number. The highest number counts.
CREATE TABLE pointers (
  sequence INTEGER PRIMARY KEY,
  document TEXT NOT NULL,
  key TEXT NOT NULL,
  signature TEXT NOT NULL
);

-- Revocations, grants, and what takes them back before their time.
CREATE TABLE acts (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  act TEXT NOT NULL,
  until INTEGER NOT NULL,
  document TEXT NOT NULL,
  key TEXT NOT NULL,
  signature TEXT NOT NULL
);
CREATE INDEX acts_until ON acts (until);

-- DPoP proofs that were used, for issuers whose policy says dpop_replay: strict.
CREATE TABLE proofs (
  proof TEXT PRIMARY KEY,
  until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX proofs_until ON proofs (until);
