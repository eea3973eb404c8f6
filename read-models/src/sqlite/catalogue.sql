-- The catalogue of the generations of the read models in SQLite, version 2. Each generation has a file of
-- its own beside this one. (Version 1 was a file with the tables of the only generation.)

CREATE TABLE generations (
    -- AUTOINCREMENT: a number is never used again.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    schema INTEGER NOT NULL,
    state  TEXT NOT NULL,
    note   TEXT
) STRICT;

PRAGMA user_version = 2;
