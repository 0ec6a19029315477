//! The settings of `kiln serve` and `kiln worker`.
//!
//! ```text
//! flag  >  environment  >  file (TOML, or SourceHut's config.ini)  >  default
//!            all are texts by key ([`keys`])            ─► ServeConfig, WorkerConfig
//! ```
//!
//! One table says which keys there are; flags, variables, the file's keys, the
//! help texts and `kiln config show` come from it, so that none of them can lack
//! one.

mod args;
mod bus;
mod file;
mod ini;
pub mod keys;
mod objects;
mod serve;
mod toml;
mod values;
mod worker;

pub use args::{AdminSettings, ServeSettings, WorkerSettings};
pub use keys::Role;
pub use objects::Objects;
pub use serve::{LogFormat, Place, ServeConfig, Tls, sqlite};
pub use values::{Layers, Source};
pub use worker::{GuestConfig, WorkerConfig, target};
