//! An image's `config.yml`: a few words that replace kiln's own.

use crate::manifest::flat_mapping;

/// The keys and their texts, in order; what is null is left out.
///
/// # Errors
/// A sentence with the place, when it is no mapping of plain values.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    flat_mapping(text.as_bytes()).map_err(|refused| refused.to_string())
}
