//! Several servers of one farm, on one PostgreSQL.

mod harness;
mod hints;
