//! kiln from its command line to its guests, as a user sees it.
//!
//! These tests boot real guests; `make test` makes their image first.

mod harness;
mod internet;
mod servers;

mod artifacts;
mod check;
mod clones;
mod doctor;
mod documents;
mod early_ends;
mod environment;
mod escape;
mod examples;
mod failures;
mod farm;
mod farm_bulk;
mod farm_commands;
mod farm_faults;
mod farm_isolated;
mod farm_outages;
mod farm_restore;
mod farm_servers;
mod flows;
mod helper;
mod here;
mod hold;
mod image_checks;
mod images;
mod jail;
mod kept;
mod logins;
mod network;
mod one_user;
mod packages;
mod private_sources;
mod reports;
mod secrets;
mod sources;
mod units;
