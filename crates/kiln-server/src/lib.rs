//! The farm's server.
//!
//! ```text
//! graphql/  web/  workers/      what comes in: the API, pages and logs, workers
//!        └────┼────┘
//!            app/               the use cases; asks permission, in one place
//!             │
//!     store  objects  hints     where the truth is, and who is told to look again
//!             │
//!        background/            passes that look at the truth and do one step
//! ```
//!
//! Handlers never touch the store: they call `app`.

mod app;
mod background;
mod config;
mod graphql;
mod hints;
mod index;
mod metrics;
mod serve;
mod state;
mod urls;
mod web;
mod workers;

pub use background::{Findings, check};
pub use config::{Config, Retention};
pub use graphql::sdl;
pub use serve::{Listener, Running, start};
