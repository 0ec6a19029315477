//! The list `triggers`: what to send when a job or a group has ended.

use crate::suggest::nearest;

use super::diagnostic::{Problem, Report, quoted, refuse_control};
use super::read::{self, Entry};
use super::yaml::Node;

/// When a trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// When the job ended as `success`.
    Success,
    /// When it ended otherwise.
    Failure,
    /// In both cases.
    Always,
}

impl Condition {
    /// The word of the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Always => "always",
        }
    }
}

/// What a trigger does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sends a mail. The values are header texts on one line, not checked as addresses.
    Email {
        /// The recipients.
        to: Option<String>,
        /// The recipients of copies.
        cc: Option<String>,
        /// The message id that the mail answers.
        in_reply_to: Option<String>,
    },
    /// Sends the job as JSON.
    Webhook {
        /// The address, `http://` or `https://`.
        url: String,
    },
}

/// One entry of `triggers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// What is done.
    pub action: Action,
    /// When it is done.
    pub condition: Condition,
}

const EXAMPLE: &str = "action: email";
const EMAIL_KEYS: &[&str] = &["action", "condition", "to", "cc", "in_reply_to"];
const WEBHOOK_KEYS: &[&str] = &["action", "condition", "url"];

/// Reads the list `triggers`.
pub(super) fn read_triggers(node: &Node, report: &mut Report) -> Vec<Trigger> {
    let items = read::list(node, "triggers", report, EXAMPLE).unwrap_or_default();
    let triggers = items.iter().enumerate().filter_map(|(index, item)| {
        let field = format!("triggers[{index}]");
        read_trigger(item, &field, report)
    });
    triggers.collect()
}

fn read_trigger(item: &Node, field: &str, report: &mut Report) -> Option<Trigger> {
    let entries = read::mapping(item, field, report, EXAMPLE)?;
    let condition = required(
        item,
        &entries,
        "condition",
        field,
        report,
        |word| match word {
            "success" => Ok(Condition::Success),
            "failure" => Ok(Condition::Failure),
            "always" => Ok(Condition::Always),
            _ => Err(wrong_word(
                "condition",
                word,
                &["success", "failure", "always"],
            )),
        },
    );
    let email = required(item, &entries, "action", field, report, |word| match word {
        "email" => Ok(true),
        "webhook" => Ok(false),
        _ => Err(wrong_word("action", word, &["email", "webhook"])),
    })?;
    let known = if email { EMAIL_KEYS } else { WEBHOOK_KEYS };
    for entry in entries.iter().filter(|e| !known.contains(&e.key)) {
        read::unknown_key(entry, field, known, report);
    }
    let action = if email {
        read_email(item, &entries, field, report)
    } else {
        let url = required(item, &entries, "url", field, report, webhook_url)?;
        Action::Webhook { url }
    };
    Some(Trigger {
        action,
        condition: condition?,
    })
}

fn read_email(item: &Node, entries: &[Entry<'_>], field: &str, report: &mut Report) -> Action {
    let mut header = |key: &str| {
        let entry = entries
            .iter()
            .find(|e| e.key == key && !e.value.is_null())?;
        read::parsed(entry.value, &format!("{field}.{key}"), report, |text| {
            // A line end would begin a header of its own.
            refuse_control(text, key).map(|()| text.to_owned())
        })
    };
    let (to, cc, in_reply_to) = (header("to"), header("cc"), header("in_reply_to"));
    if to.is_none() && cc.is_none() {
        let problem = Problem::new("this mail has no recipient", "add `to` or `cc`");
        report.warn(item.at, field, problem);
    }
    Action::Email {
        to,
        cc,
        in_reply_to,
    }
}

fn webhook_url(url: &str) -> Result<String, Problem> {
    let known = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let blank = url.chars().any(|c| c.is_whitespace() || c.is_control());
    if known.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && !blank {
        return Ok(url.to_owned());
    }
    let message = format!("{} is not the address of a webhook", quoted(url));
    Err(Problem::new(
        message,
        "write a url that begins with `https://` or `http://`",
    ))
}

fn required<T>(
    item: &Node,
    entries: &[Entry<'_>],
    key: &str,
    field: &str,
    report: &mut Report,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Option<T> {
    let Some(entry) = entries.iter().find(|e| e.key == key) else {
        let problem = Problem::new(format!("this trigger has no `{key}`"), "add it");
        report.error(item.at, field, problem);
        return None;
    };
    read::parsed(entry.value, &format!("{field}.{key}"), report, parse)
}

fn wrong_word(what: &str, word: &str, known: &[&str]) -> Problem {
    let message = format!("{} is not {} of a trigger", quoted(word), article(what));
    let remedy = match nearest(word, known) {
        Some(suggestion) => format!("did you mean `{suggestion}`?"),
        None => format!("write one of `{}`", known.join("`, `")),
    };
    Problem::new(message, remedy)
}

fn article(what: &str) -> String {
    let vowel = what.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {what}", if vowel { "an" } else { "a" })
}
