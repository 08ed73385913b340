-- Sessions (tries of tasks, say) that have ended before their tokens, as their issuers have told. A number is given
-- once: a gate asks for those above the last one that it knows.
CREATE TABLE sessions (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  issuer TEXT NOT NULL,
  session TEXT NOT NULL,
  result TEXT NOT NULL,
  until INTEGER NOT NULL,
  UNIQUE (issuer, session)
) STRICT;
CREATE INDEX sessions_until ON sessions (until);
