-- weights.db, schema 1: content-addressed weights. A version is committed before anything in state.db refers to it.

CREATE TABLE chunk (
    hash     BLOB PRIMARY KEY, -- BLAKE2b-256 of data
    added_ms INTEGER NOT NULL,
    data     BLOB NOT NULL
) STRICT;

CREATE TABLE version (
    id         TEXT PRIMARY KEY, -- hex BLAKE2b-256 of manifest
    kind       TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    manifest   BLOB NOT NULL     -- wire Manifest
) STRICT;

CREATE TABLE version_chunk (
    chunk   BLOB NOT NULL REFERENCES chunk (hash),
    version TEXT NOT NULL REFERENCES version (id),
    PRIMARY KEY (chunk, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX version_chunk_version ON version_chunk (version);
CREATE INDEX chunk_age ON chunk (added_ms);
