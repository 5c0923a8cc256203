-- state.db, schema 5: the accounts of fair shares outlive the coordinator (daemon/coord/fair.h has the rule).

-- Worker time in ms, of leases that are over: what runs is not in it before its end.
ALTER TABLE search ADD COLUMN used_ms REAL NOT NULL DEFAULT 0;

-- Of users with a search that is not over.
CREATE TABLE account (
    user    TEXT PRIMARY KEY,
    used_ms REAL NOT NULL
) STRICT, WITHOUT ROWID;
