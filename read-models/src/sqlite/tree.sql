-- The Merkle tree over the log, in the file of the catalogue.

CREATE TABLE IF NOT EXISTS trees (
    number INTEGER PRIMARY KEY,
    log    TEXT NOT NULL,
    size   INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS tree_tiles (
    tree   INTEGER NOT NULL,
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    -- One hash after the other, up to 256.
    hashes BLOB NOT NULL,
    PRIMARY KEY (tree, level, number)
) STRICT;

CREATE TABLE IF NOT EXISTS tree_heads (
    tree INTEGER NOT NULL,
    size INTEGER NOT NULL,
    -- The signed note.
    note TEXT NOT NULL,
    PRIMARY KEY (tree, size)
) STRICT, WITHOUT ROWID;
