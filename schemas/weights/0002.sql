-- weights.db, schema 2: chunks that no version has, and since when. Letting go of them looks at them alone, however many others there are.

CREATE TABLE orphan (
    chunk    BLOB PRIMARY KEY REFERENCES chunk (hash),
    since_ms INTEGER NOT NULL -- when the last version let go, or when an upload last asked for it
) STRICT, WITHOUT ROWID;
CREATE INDEX orphan_age ON orphan (since_ms);
INSERT INTO orphan SELECT hash, added_ms FROM chunk AS c WHERE NOT EXISTS (SELECT 1 FROM version_chunk AS v WHERE v.chunk = c.hash);
DROP INDEX chunk_age;

ALTER TABLE version ADD COLUMN touched_ms INTEGER NOT NULL DEFAULT 0; -- last put, also of one that was here already
UPDATE version SET touched_ms = created_ms;
