-- What stays of jobs that have ended, and for how long.

-- Whether this job's logs were packed after its end, and counted with its artifacts.
ALTER TABLE jobs ADD COLUMN packed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_to_pack ON jobs (ended, id) WHERE packed = 0 AND ended IS NOT NULL;

-- When its logs were removed.
ALTER TABLE jobs ADD COLUMN logs_removed BIGINT;

-- In an object store: the object that has the whole log, packed, instead of pieces.
ALTER TABLE logs ADD COLUMN packed TEXT;
ALTER TABLE logs ADD COLUMN packed_length BIGINT;

-- What ended jobs keep, in bytes; no row for who keeps nothing.
CREATE TABLE kept (
    job_id BIGINT PRIMARY KEY REFERENCES jobs (id),
    owner_id BIGINT NOT NULL REFERENCES users (id),
    ended BIGINT NOT NULL,
    logs BIGINT NOT NULL CHECK (logs >= 0),
    artifacts BIGINT NOT NULL CHECK (artifacts >= 0)
);
CREATE INDEX kept_logs ON kept (ended, job_id) WHERE logs > 0;
CREATE INDEX kept_artifacts ON kept (ended, job_id) WHERE artifacts > 0;
CREATE INDEX kept_logs_of_owner ON kept (owner_id, ended, job_id) WHERE logs > 0;
CREATE INDEX kept_artifacts_of_owner ON kept (owner_id, ended, job_id) WHERE artifacts > 0;

-- The sum of an owner's rows there.
ALTER TABLE users ADD COLUMN kept BIGINT NOT NULL DEFAULT 0;

-- Objects that no row refers to any more, or all whose keys begin so (with a slash at the
-- end), and from when on they may be removed.
CREATE TABLE garbage (
    object TEXT PRIMARY KEY,
    due BIGINT NOT NULL
);
CREATE INDEX garbage_due ON garbage (due);

-- What only one server does at a time, to spare the others the work.
CREATE TABLE duties (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until BIGINT NOT NULL
);

-- Whose the objects are: where another farm's name is written, nothing is removed.
ALTER TABLE farm ADD COLUMN identity TEXT;

-- Whether a session was ever given anything.
CREATE INDEX attempts_of_session ON attempts (session_id);
