-- state.db, schema 4: when a worker was last heard of, so that those that never come back are forgotten (daemon/coord/retain.c has the rule).

ALTER TABLE worker ADD COLUMN last_seen_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX worker_seen ON worker (last_seen_ms);

-- Earlier schemas did not say: as if all had been heard now.
UPDATE worker SET last_seen_ms = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
