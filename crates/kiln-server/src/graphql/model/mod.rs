//! The API's types. What the store has is converted here; no type is both.

pub(super) mod artifact;
pub(super) mod directives;
pub(super) mod enums;
pub(super) mod group;
pub(super) mod job;
pub(super) mod log;
pub(super) mod scalars;
pub(super) mod secret;
pub(super) mod user;
pub(super) mod version;
pub(super) mod webhook;
pub(super) mod worker;

pub(super) use webhook::WebhookPayload as Payload;

/// What no value has: of things that this farm can't make yet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Never {}

impl Never {
    /// Whatever a field of it is.
    fn none<T>(self) -> T {
        match self {}
    }
}
