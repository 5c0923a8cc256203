-- state.db, schema 3: which weights versions rows still need, and searches that are pinned or deleted (daemon/coord/retain.c has the rule).

-- A version without a row here is needed by nothing and may be collected. role: 1 work (checkpoints, parts: what going on needs), 2 final (named by the result)
CREATE TABLE version_use (
    version TEXT NOT NULL,
    search  INTEGER NOT NULL REFERENCES search (id),
    job     INTEGER NOT NULL REFERENCES job (id),
    role    INTEGER NOT NULL,
    PRIMARY KEY (version, search, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX version_use_search ON version_use (search, role);
CREATE INDEX version_use_job ON version_use (job);

ALTER TABLE search ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE search ADD COLUMN deleted_ms INTEGER; -- asked for then; its rows go bit by bit, this one stays, so that no id and no token comes twice
CREATE INDEX search_deleted ON search (id) WHERE deleted_ms IS NOT NULL AND driver <> '';
CREATE INDEX search_shown ON search (state) WHERE deleted_ms IS NULL; -- counting them reads no row
CREATE INDEX search_ended ON search (ended_ms) WHERE state = 3;
CREATE INDEX result_job ON result (job); -- deleting a job asks for its children

-- Earlier schemas did not say who needs what: the newest checkpoint of every job, what finished jobs made (JobResult.weights is field 1, exported field 7:
-- a tag, a length of 64, the text), and exports. Too much is harmless here.
INSERT OR IGNORE INTO version_use SELECT c.weights, j.search, c.job, 1 FROM checkpoint AS c JOIN job AS j ON j.id = c.job
    WHERE c.step = (SELECT max(step) FROM checkpoint WHERE job = c.job);
INSERT OR IGNORE INTO version_use SELECT text, search, job, 1 FROM result WHERE measure = 4 AND job IS NOT NULL AND length(text) = 64;
INSERT OR IGNORE INTO version_use SELECT CAST(substr(result, 3, 64) AS TEXT), search, id, 1 FROM job
    WHERE state = 4 AND kind IN (1, 4, 5, 6) AND substr(result, 1, 2) = x'0A40';
INSERT OR IGNORE INTO version_use SELECT CAST(substr(result, instr(result, x'3A40') + 2, 64) AS TEXT), search, id, 1 FROM job
    WHERE state = 4 AND kind = 7 AND instr(result, x'3A40') > 0;
