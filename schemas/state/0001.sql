-- state.db, schema 1: searches, jobs, attempts, results, events. Enum numbers are fixed for ever (daemon/store/job.h, daemon/store/*_rows.h).

CREATE TABLE search (
    id           INTEGER PRIMARY KEY,
    token        TEXT NOT NULL UNIQUE,     -- submitting the same token twice gives the same search
    name         TEXT NOT NULL,
    user         TEXT NOT NULL,
    driver       TEXT NOT NULL,            -- daemon/driver/drivers.c's table
    priority     INTEGER NOT NULL,
    state        INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
    phase        TEXT NOT NULL DEFAULT '', -- the driver's word for where it is: for people
    text         TEXT NOT NULL,            -- normalised search.yaml
    submitted_ms INTEGER NOT NULL,
    ended_ms     INTEGER,
    reason       TEXT,                     -- why it failed
    result       TEXT,                     -- result.json
    n_waiting    INTEGER NOT NULL DEFAULT 0,
    n_ready      INTEGER NOT NULL DEFAULT 0,
    n_running    INTEGER NOT NULL DEFAULT 0,
    n_done       INTEGER NOT NULL DEFAULT 0,
    n_failed     INTEGER NOT NULL DEFAULT 0,
    n_cancelled  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX search_live ON search (id) WHERE state = 1 OR state = 2;
CREATE INDEX search_state ON search (state);
CREATE INDEX search_unswept ON search (id) WHERE (state = 3 OR state = 5) AND n_waiting + n_ready + n_running > 0;

CREATE TABLE job (
    id            INTEGER PRIMARY KEY,
    search        INTEGER NOT NULL REFERENCES search (id),
    kind          INTEGER NOT NULL,
    state         INTEGER NOT NULL CHECK (state BETWEEN 1 AND 6),
    not_before_ms INTEGER NOT NULL DEFAULT 0, -- backoff; 0: at once
    attempt       INTEGER NOT NULL DEFAULT 0, -- of the current or the last lease
    failures      INTEGER NOT NULL DEFAULT 0, -- attempts that count against the limit
    losses        INTEGER NOT NULL DEFAULT 0, -- leases in a row whose worker vanished
    waits         INTEGER NOT NULL DEFAULT 0, -- dependencies not done yet
    worker        INTEGER,                    -- of the current or the last lease
    created_ms    INTEGER NOT NULL,
    leased_ms     INTEGER,
    ended_ms      INTEGER,
    key           TEXT,                       -- the driver's name for it, unique in its search: creating it twice is creating it once
    spec          BLOB,                       -- wire JobSpec without search_text
    result        BLOB,                       -- wire JobResult
    error_code    TEXT,
    error         TEXT
) STRICT;
-- Only what is not over is indexed: picking and restarting do not depend on how much history there is.
CREATE INDEX job_live ON job (state, search, not_before_ms, id) WHERE state = 1 OR state = 2 OR state = 3;
CREATE UNIQUE INDEX job_key ON job (search, key) WHERE key IS NOT NULL;

CREATE TABLE dependency (
    needs INTEGER NOT NULL REFERENCES job (id),
    job   INTEGER NOT NULL REFERENCES job (id),
    PRIMARY KEY (needs, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependency_job ON dependency (job);

-- One row for each attempt that is over (JOB_NOOP keeps only those that went wrong).
CREATE TABLE attempt (
    job        INTEGER NOT NULL REFERENCES job (id),
    attempt    INTEGER NOT NULL,
    worker     INTEGER NOT NULL,
    outcome    INTEGER NOT NULL,
    leased_ms  INTEGER NOT NULL,
    ended_ms   INTEGER NOT NULL,
    error_code TEXT,
    error      TEXT,
    log        TEXT,
    PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

-- Where a training job stood at the end of each slice.
CREATE TABLE checkpoint (
    job        INTEGER NOT NULL REFERENCES job (id),
    step       INTEGER NOT NULL,
    steps      INTEGER NOT NULL,
    weights    TEXT NOT NULL,
    loss       REAL,
    per_second REAL,
    seconds    REAL,
    PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

CREATE INDEX checkpoint_weights ON checkpoint (weights);

-- What the search algorithm asked for, in ticket order.
CREATE TABLE candidate (
    search           INTEGER NOT NULL REFERENCES search (id),
    ticket           INTEGER NOT NULL,
    id               BLOB NOT NULL,
    architecture     TEXT NOT NULL,
    params           INTEGER,
    macs             INTEGER,
    activation_bytes INTEGER,
    PRIMARY KEY (search, ticket)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX candidate_id ON candidate (search, id);

-- A result counts once per (architecture, weights version, split, measure) of a search.
CREATE TABLE result (
    search       INTEGER NOT NULL REFERENCES search (id),
    id           BLOB NOT NULL,     -- architecture
    weights      TEXT NOT NULL,     -- '' when it does not depend on them
    split        INTEGER NOT NULL,  -- 0 none, 1 validation, 2 test
    measure      INTEGER NOT NULL,  -- 1 accuracy, 2 latency, 3 table value, 4 exported weights
    job          INTEGER REFERENCES job (id),
    ok           INTEGER NOT NULL,  -- 0: failed for good
    value        REAL,
    low          REAL,
    high         REAL,
    loss         REAL,
    correct      INTEGER,
    samples      INTEGER,
    text         TEXT,              -- machine kind, exported version
    PRIMARY KEY (search, id, weights, split, measure)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (
    id            INTEGER PRIMARY KEY,
    uid           BLOB NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    device        TEXT NOT NULL,
    machine_kind  TEXT NOT NULL,
    memory_bytes  INTEGER NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    drained       TEXT                 -- why it gets no more work
) STRICT;

CREATE TABLE enqueue (
    token  TEXT PRIMARY KEY,
    search INTEGER NOT NULL REFERENCES search (id)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    id     INTEGER PRIMARY KEY,
    ms     INTEGER NOT NULL,
    search INTEGER,
    job    INTEGER,
    kind   TEXT NOT NULL,
    json   TEXT NOT NULL
) STRICT;
CREATE INDEX event_search ON event (search, id) WHERE search IS NOT NULL;
