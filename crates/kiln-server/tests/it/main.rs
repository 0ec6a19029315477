//! A server, as those who talk to it see it.

mod api;
