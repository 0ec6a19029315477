-- The oldest keys of submissions, which are forgotten after a while.
CREATE INDEX jobs_with_key ON jobs (id) WHERE idempotency IS NOT NULL;
