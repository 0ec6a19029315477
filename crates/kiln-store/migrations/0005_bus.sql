-- What several servers need of each other.

-- What only the farm's servers know, 32 bytes in hexadecimal: what is said on the bus is
-- sealed with it. The first server that wants one makes it.
ALTER TABLE farm ADD COLUMN bus_key TEXT;

-- Which socket speaks for the session: each that says hello takes the next number, on
-- whatever server it is.
ALTER TABLE sessions ADD COLUMN voice BIGINT NOT NULL DEFAULT 0;
