//! Workers of a farm, on the dummy machine, with a server that remembers all.

mod harness;
mod health;
mod internal;
mod jobs;
mod live;
mod outages;
mod stopping;
