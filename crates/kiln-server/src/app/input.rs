//! What people write into fields, and its limits ([`limits`]).

use kiln_core::farm::limits;
use kiln_store::model::TriggerAction;
use serde_json::json;

use super::{Error, Result};

fn wrong(field: &str, message: String) -> Error {
    Error::Invalid {
        message,
        details: json!({ "field": field }),
    }
}

/// Refuses a text of more bytes.
///
/// # Errors
/// Names field and limit.
pub(crate) fn at_most(field: &str, text: &str, bytes: usize) -> Result<()> {
    if text.len() <= bytes {
        return Ok(());
    }
    let has = text.len();
    let message = format!("`{field}` has {has} bytes; it may have at most {bytes}");
    Err(wrong(field, message))
}

/// Refuses a list of more entries.
///
/// # Errors
/// Names field and limit.
pub(crate) fn at_most_entries(field: &str, has: usize, limit: usize) -> Result<()> {
    if has <= limit {
        return Ok(());
    }
    let message = format!("`{field}` has {has} entries; it may have at most {limit}");
    Err(wrong(field, message))
}

/// Refuses what no one line of text may have in it.
fn one_line(field: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        let message = format!("`{field}` has a control character in it; write it on one line");
        return Err(wrong(field, message));
    }
    Ok(())
}

/// A note: any text but NUL, which no database keeps.
///
/// # Errors
/// Names field and limit.
pub(crate) fn note(note: Option<String>) -> Result<Option<String>> {
    let note = note.filter(|note| !note.is_empty());
    if let Some(text) = &note {
        at_most("note", text, limits::NOTE)?;
        if text.contains('\0') {
            return Err(wrong("note", "`note` has a NUL in it; remove it".into()));
        }
    }
    Ok(note)
}

/// Tags: a line of text each, since forges send names of branches; empty ones are
/// left out, since that is how `hut` says that there is none.
///
/// # Errors
/// Names field and limit.
pub(crate) fn tags(tags: Option<Vec<String>>) -> Result<Vec<String>> {
    let mut tags = tags.unwrap_or_default();
    tags.retain(|tag| !tag.is_empty());
    at_most_entries("tags", tags.len(), limits::TAGS)?;
    for tag in &tags {
        at_most("tags", tag, limits::TAG)?;
        one_line("tags", tag)?;
    }
    Ok(tags)
}

/// What a trigger does.
///
/// # Errors
/// Names field and limit.
pub(crate) fn action(action: TriggerAction) -> Result<TriggerAction> {
    match &action {
        TriggerAction::Email {
            to,
            cc,
            in_reply_to,
        } => {
            mail("email.to", to)?;
            if let Some(cc) = cc {
                mail("email.cc", cc)?;
            }
            if let Some(id) = in_reply_to {
                at_most("email.inReplyTo", id, limits::NOTE)?;
                one_line("email.inReplyTo", id)?;
            }
        }
        TriggerAction::Webhook { url } => webhook("webhook.url", url)?,
    }
    Ok(action)
}

/// Addresses of mail: several, with commas, as in a mail's header.
fn mail(field: &str, addresses: &str) -> Result<()> {
    at_most(field, addresses, limits::NOTE)?;
    one_line(field, addresses)?;
    for address in addresses.split(',') {
        at_most(field, address.trim(), limits::EMAIL)?;
    }
    if !addresses.contains('@') {
        let message = format!("`{field}` is no address of mail; write one like name@example.org");
        return Err(wrong(field, message));
    }
    Ok(())
}

fn webhook(field: &str, url: &str) -> Result<()> {
    at_most(field, url, limits::URL)?;
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let blank = url.chars().any(|c| c.is_whitespace() || c.is_control());
    if blank || rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        let message = format!("`{field}` is no address of a webhook; begin it with https://");
        return Err(wrong(field, message));
    }
    Ok(())
}
