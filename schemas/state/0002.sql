-- state.db, schema 2: gangs, and what a job needs of its device.

ALTER TABLE job ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0; -- predicted; 0: unknown, or nothing worth counting

-- Who holds which rank of a job's current attempt. Rows of an attempt that is over stay until the job's next one.
CREATE TABLE gang_rank (
    job     INTEGER NOT NULL REFERENCES job (id),
    rank    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    size    INTEGER NOT NULL, -- of the whole gang
    worker  INTEGER NOT NULL,
    id      BLOB,             -- rank 0: what it offered for the others to find it
    PRIMARY KEY (job, rank)
) STRICT, WITHOUT ROWID;
