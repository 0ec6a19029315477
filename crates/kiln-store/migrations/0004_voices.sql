-- Which of a session's sockets speaks for it: the last one, whichever server it is on.
ALTER TABLE sessions ADD COLUMN voice BIGINT NOT NULL DEFAULT 0;
