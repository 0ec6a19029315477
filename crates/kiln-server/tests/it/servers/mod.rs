//! Several servers of one farm, on one PostgreSQL and one bucket.

mod harness;
mod hints;
mod logs;
