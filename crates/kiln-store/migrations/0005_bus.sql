-- What only the farm's servers know, 32 bytes in hexadecimal: what is said on the bus is
-- sealed with it. The first server that wants one makes it.
ALTER TABLE farm ADD COLUMN bus_key TEXT;
