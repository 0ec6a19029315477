-- The farm. One text for both engines: `IDENTITY` stands for a growing number
-- that is never given twice, the one thing that they spell differently.
-- Integers are BIGINT, moments are microseconds since 1970 by the database's
-- clock, truths are 0 or 1, JSON and lists are TEXT.

-- What the whole farm agrees on; one row.
CREATE TABLE farm (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    -- How many jobs of one share may run at once where the share itself says nothing.
    share_cap BIGINT,
    -- When classes that no worker serves were last looked at.
    looked BIGINT NOT NULL
);
INSERT INTO farm (id, share_cap, looked) VALUES (1, NULL, 0);

CREATE TABLE users (
    id IDENTITY,
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    admin BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    revoked BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE tokens (
    id IDENTITY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    hash TEXT NOT NULL UNIQUE,
    grants TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tokens_of_user ON tokens (user_id, id);

CREATE TABLE workers (
    id IDENTITY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    revoked BIGINT NOT NULL DEFAULT 0,
    paused TEXT
);
CREATE UNIQUE INDEX workers_by_name ON workers (name) WHERE revoked = 0;

-- One start of a worker.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    worker_id BIGINT NOT NULL REFERENCES workers (id),
    version TEXT NOT NULL,
    started BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    ended BIGINT,
    slots BIGINT NOT NULL,
    capacity BIGINT NOT NULL,
    labels TEXT NOT NULL,
    mood TEXT NOT NULL,
    mood_reason TEXT,
    short_of TEXT
);
CREATE INDEX sessions_here ON sessions (seen) WHERE ended IS NULL;

-- Every image that a worker ever offered.
CREATE TABLE images (
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    first_offered BIGINT NOT NULL,
    PRIMARY KEY (name, arch)
);

-- What fairness counts by. The owner's own share has the empty name.
CREATE TABLE shares (
    id IDENTITY,
    owner_id BIGINT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    cap BIGINT,
    running BIGINT NOT NULL DEFAULT 0 CHECK (running >= 0),
    -- The fence that it was given last: who had its turn longest ago comes first.
    turn BIGINT NOT NULL DEFAULT 0,
    UNIQUE (owner_id, name)
);

-- Jobs that ask the same of a worker.
CREATE TABLE classes (
    id IDENTITY,
    requirements TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    -- For how long in a row no worker was seen that could serve it.
    unserved BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX classes_by_image ON classes (image);

-- The queue of one share for one class, with the count of what could run.
CREATE TABLE lanes (
    class_id BIGINT NOT NULL REFERENCES classes (id),
    share_id BIGINT NOT NULL REFERENCES shares (id),
    queued BIGINT NOT NULL CHECK (queued >= 0),
    PRIMARY KEY (class_id, share_id)
);
CREATE INDEX lanes_waiting ON lanes (class_id) WHERE queued > 0;
CREATE INDEX lanes_of_share ON lanes (share_id) WHERE queued > 0;

CREATE TABLE job_groups (
    id IDENTITY,
    owner_id BIGINT NOT NULL REFERENCES users (id),
    created BIGINT NOT NULL,
    note TEXT
);

CREATE TABLE group_triggers (
    group_id BIGINT NOT NULL REFERENCES job_groups (id),
    place BIGINT NOT NULL,
    happens TEXT NOT NULL,
    action TEXT NOT NULL,
    PRIMARY KEY (group_id, place)
);

CREATE TABLE jobs (
    id IDENTITY,
    owner_id BIGINT NOT NULL REFERENCES users (id),
    share_id BIGINT NOT NULL REFERENCES shares (id),
    class_id BIGINT NOT NULL REFERENCES classes (id),
    group_id BIGINT REFERENCES job_groups (id),
    status TEXT NOT NULL,
    priority BIGINT NOT NULL,
    recipe_kind TEXT NOT NULL,
    recipe TEXT NOT NULL,
    visibility TEXT NOT NULL,
    tags TEXT NOT NULL,
    note TEXT,
    secrets BIGINT NOT NULL,
    -- Jobs that must have succeeded before; runnable is queued with none left.
    needs_left BIGINT NOT NULL DEFAULT 0,
    deadline_seconds BIGINT NOT NULL,
    idempotency TEXT,
    idempotency_hash TEXT,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    -- When it was first queued: its age among others, which a lost lease does not take.
    since BIGINT,
    queued BIGINT,
    started BIGINT,
    ended BIGINT,
    reason TEXT,
    -- Attempts that there were, and those of them that count against the limit.
    attempts BIGINT NOT NULL DEFAULT 0,
    tries BIGINT NOT NULL DEFAULT 0,
    worker_id BIGINT REFERENCES workers (id),
    image_digest TEXT
);
CREATE UNIQUE INDEX jobs_by_idempotency ON jobs (owner_id, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX jobs_of_owner ON jobs (owner_id, id);
CREATE INDEX jobs_of_group ON jobs (group_id, id) WHERE group_id IS NOT NULL;
CREATE INDEX jobs_runnable ON jobs (class_id, share_id, priority DESC, since, id)
    WHERE status = 'queued' AND needs_left = 0;
CREATE INDEX jobs_queued ON jobs (id) WHERE status = 'queued';

CREATE TABLE tasks (
    id IDENTITY,
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    place BIGINT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (job_id, place),
    UNIQUE (job_id, name)
);

-- One lease's try at a job; its number is the fence.
CREATE TABLE attempts (
    id IDENTITY,
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    number BIGINT NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions (id),
    worker_id BIGINT NOT NULL REFERENCES workers (id),
    token TEXT UNIQUE,
    granted BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    begun BIGINT,
    ended BIGINT,
    -- Which operation ended it, so that its repetition is known for one.
    outcome TEXT,
    reason TEXT,
    UNIQUE (job_id, number)
);
CREATE UNIQUE INDEX one_lease_per_job ON attempts (job_id) WHERE ended IS NULL;
CREATE INDEX leases_of_session ON attempts (session_id) WHERE ended IS NULL;

CREATE TABLE artifacts (
    id IDENTITY,
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    place BIGINT NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created BIGINT NOT NULL,
    pruned BIGINT NOT NULL DEFAULT 0,
    UNIQUE (job_id, place)
);

-- What each source was cloned at, last.
CREATE TABLE sources (
    job_id BIGINT NOT NULL REFERENCES jobs (id),
    place BIGINT NOT NULL,
    revision TEXT NOT NULL,
    PRIMARY KEY (job_id, place)
);

-- What others are to be told, once, after the commit that wrote it.
CREATE TABLE outbox (
    id IDENTITY,
    kind TEXT NOT NULL,
    job_id BIGINT REFERENCES jobs (id),
    group_id BIGINT REFERENCES job_groups (id),
    created BIGINT NOT NULL
);
