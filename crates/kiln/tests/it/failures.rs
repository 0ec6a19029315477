//! What breaks: manifests, images, guests, this host, the people at it. Each
//! ends with the status and the sentence that it deserves, in time, and leaves
//! nothing behind.

mod containment;
mod guests;
mod host;
mod limits;
mod manifests;
mod options;
mod signals;
mod strange_images;
pub mod support;
mod tasks;
mod templates;
