-- Logs in an object store. In a directory a log is a file, and has no rows here.

-- Where each log ends. What is stored is what a committed row says.
CREATE TABLE logs (
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    -- The task's name; empty for the job's own log.
    task TEXT NOT NULL,
    stored BIGINT NOT NULL CHECK (stored >= 0),
    -- Whether its last byte ends no line.
    mid_line BIGINT NOT NULL,
    PRIMARY KEY (job_id, task)
);

-- The pieces of each log, without a hole: an object each, or a line of the server's own.
CREATE TABLE chunks (
    job_id BIGINT NOT NULL,
    task TEXT NOT NULL,
    start BIGINT NOT NULL,
    length BIGINT NOT NULL CHECK (length > 0),
    created BIGINT NOT NULL,
    -- Of what an object holds.
    sha256 TEXT,
    -- The object's key, without the farm's own prefix.
    object TEXT,
    line TEXT,
    PRIMARY KEY (job_id, task, start),
    FOREIGN KEY (job_id, task) REFERENCES logs (job_id, task),
    CHECK ((object IS NULL) <> (line IS NULL)),
    CHECK ((object IS NULL) = (sha256 IS NULL))
);
