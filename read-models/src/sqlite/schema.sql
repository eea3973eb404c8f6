-- A generation of the read models in SQLite. Ids of users and rooms are their 16 bytes; everything that
-- is a place in the log is its sequence number; times are milliseconds since 1970.

CREATE TABLE checkpoint (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    position    INTEGER NOT NULL,
    incarnation TEXT NOT NULL,
    heartbeat   INTEGER NOT NULL,
    lag_millis  INTEGER NOT NULL, -- how far behind the log the projector was by the last heartbeat
    unpurged    INTEGER -- the last batch that made texts go, unless they have been purged from the files since
) STRICT;

-- Who may write, and how often that was taken.
CREATE TABLE lease (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    fence    INTEGER NOT NULL,
    holder   TEXT
) STRICT;
INSERT INTO lease (only_row, fence) VALUES (1, 0);

CREATE TABLE users (
    position   INTEGER PRIMARY KEY, -- of its creation
    id         BLOB NOT NULL UNIQUE,
    first_name TEXT NOT NULL,
    last_name  TEXT NOT NULL,
    type       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted    INTEGER NOT NULL
) STRICT;
CREATE INDEX users_by_deleted ON users (deleted);

-- Those who have been erased, whether they are in `users` or not: no text of theirs is stored.
CREATE TABLE erasures (
    user      BLOB PRIMARY KEY,
    position  INTEGER NOT NULL, -- of the first erasure
    at        INTEGER NOT NULL,
    erased_by BLOB
) STRICT, WITHOUT ROWID;

-- Within the other tables a room is the position of its initiation: half the size of its id, and rows of
-- old rooms lie together.
CREATE TABLE rooms (
    position         INTEGER PRIMARY KEY, -- of its initiation
    id               BLOB NOT NULL UNIQUE,
    type             TEXT NOT NULL,
    expired          INTEGER, -- the last message whose text has expired; so have those of all before it
    deleted_at       INTEGER, -- the position of its deletion
    deleted_messages INTEGER  -- how many messages went with it
) STRICT;
CREATE INDEX rooms_by_type ON rooms (type, id) WHERE deleted_at IS NULL;

CREATE TABLE room_members (
    room         INTEGER NOT NULL,
    user         BLOB NOT NULL,
    last_message INTEGER, -- the room's newest message, so that one index lists a user's rooms in order
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX room_members_recent ON room_members (user, last_message, room);

CREATE TABLE messages (
    id         INTEGER PRIMARY KEY,
    room       INTEGER NOT NULL,
    author     BLOB NOT NULL,
    text       TEXT, -- as posted; gone once deleted, expired or erased
    created_at INTEGER NOT NULL,
    edit       INTEGER, -- the newest edit's position
    deleted_at INTEGER, -- the position of the first deletion
    deleted_on INTEGER, -- its time
    deleted_by BLOB
) STRICT;
-- Deleted messages stay out of the way of counts, however many there are; pages merge the two.
CREATE INDEX messages_live ON messages (room, id) WHERE deleted_at IS NULL;
-- With deleted_at in it, although it is always null here, counting reads the index alone.
CREATE INDEX messages_live_by_author ON messages (room, author, id, deleted_at)
    WHERE deleted_at IS NULL;
CREATE INDEX messages_deleted ON messages (room, id) WHERE deleted_at IS NOT NULL;

-- Every text that a message was given by editing.
CREATE TABLE edits (
    position INTEGER PRIMARY KEY,
    room     INTEGER NOT NULL,
    message  INTEGER NOT NULL,
    author   BLOB NOT NULL,
    text     TEXT, -- gone with that of the message
    at       INTEGER NOT NULL
) STRICT;
CREATE INDEX edits_of_message ON edits (room, message, position);

-- The words of the newest texts that are not gone, found by `MATCH`; a row's id is the message's. They come
-- from `words.rs` as lower-case letters, digits and marks, so the tokenizer only sees where the spaces are.
-- Nothing but the index is kept.
CREATE VIRTUAL TABLE message_words USING fts5(
    room, words, content = '', contentless_delete = 1, detail = column, tokenize = 'ascii'
);

-- That somebody read a room: the messages after from_message, up to and with up_to. The marks of one
-- reader in one room join end to end.
CREATE TABLE marks (
    position     INTEGER PRIMARY KEY,
    room         INTEGER NOT NULL,
    reader       BLOB NOT NULL,
    from_message INTEGER NOT NULL,
    up_to        INTEGER NOT NULL,
    at           INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX marks_by_reader ON marks (room, reader, up_to);

-- The first event with each deduplication id that was made from an idempotency key.
CREATE TABLE keys (
    deduplication_id BLOB PRIMARY KEY,
    position         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    position INTEGER PRIMARY KEY,
    subject  TEXT NOT NULL,
    payload  BLOB NOT NULL,
    reason   TEXT NOT NULL
) STRICT;

PRAGMA user_version = 3;
