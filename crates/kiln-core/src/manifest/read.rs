//! Reading YAML nodes as the shapes a manifest is made of: texts, flags, lists, mappings.
//!
//! A manifest's authors write `packages: [3.10]` and `image: 12` and mean text. So wherever
//! text is expected any scalar is taken, exactly as it was written; only lists, mappings and
//! nothing at all are errors.

use std::collections::HashMap;
use std::rc::Rc;

use crate::suggest::nearest;

use super::diagnostic::{Position, Problem, Report, quoted};
use super::yaml::{Node, Value};

/// One `key: value` of a mapping.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) key_at: Position,
    pub(super) value: &'a Node,
}

/// What a node is, for a message.
pub(super) fn kind(node: &Node) -> &'static str {
    match &node.value {
        _ if node.is_null() => "empty",
        Value::Scalar { .. } => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
    }
}

/// The text of a scalar as it was written.
pub(super) fn text<'a>(node: &'a Node, field: &str, report: &mut Report) -> Option<&'a str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        Value::Scalar { .. } => {
            let remedy = "write the text, or put quotes around a text that is meant so";
            report.error(
                node.at,
                field,
                Problem::new("there is no value here", remedy),
            );
            None
        }
        _ => {
            let message = format!("this is {} where a text is needed", kind(node));
            let remedy = "write one text, in quotes if it contains `: `, `{` or `[`";
            report.error(node.at, field, Problem::new(message, remedy));
            None
        }
    }
}

/// The text of a scalar, turned into a value of its own type.
pub(super) fn parsed<T>(
    node: &Node,
    field: &str,
    report: &mut Report,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Option<T> {
    let text = text(node, field, report)?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(problem) => {
            report.error(node.at, field, problem);
            None
        }
    }
}

/// A flag. `yes`, `no`, `on` and `off` mean what YAML 1.1 says, because nothing else can be
/// meant where only a flag can be.
pub(super) fn flag(node: &Node, field: &str, report: &mut Report) -> Option<bool> {
    if let Value::Scalar { text, plain: true } = &node.value {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => return Some(true),
            "false" | "no" | "off" => return Some(false),
            _ => {}
        }
    }
    let problem = Problem::new("this is neither true nor false", "write `true` or `false`");
    report.error(node.at, field, problem);
    None
}

/// The entries of a list.
pub(super) fn list<'a>(
    node: &'a Node,
    field: &str,
    report: &mut Report,
    example: &str,
) -> Option<&'a [Rc<Node>]> {
    if let Value::Sequence(items) = &node.value {
        return Some(items);
    }
    let message = format!("this is {} where a list is needed", kind(node));
    let remedy = format!("write each entry on a line of its own, as `- {example}`");
    report.error(node.at, field, Problem::new(message, remedy));
    None
}

/// The values of a list of texts. Entries that are wrong are reported and left out.
pub(super) fn text_list<T>(
    node: &Node,
    field: &str,
    report: &mut Report,
    example: &str,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Option<Vec<T>> {
    let items = list(node, field, report, example)?;
    let values = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| parsed(item, &format!("{field}[{index}]"), report, &parse));
    Some(values.collect())
}

/// The entries of a mapping, in the order of the text; each key once.
pub(super) fn mapping<'a>(
    node: &'a Node,
    field: &str,
    report: &mut Report,
    example: &str,
) -> Option<Vec<Entry<'a>>> {
    let Value::Mapping(entries) = &node.value else {
        let message = format!("this is {} where `key: value` lines are needed", kind(node));
        let remedy = format!("write it as `{example}`");
        report.error(node.at, field, Problem::new(message, remedy));
        return None;
    };
    let mut seen: HashMap<&str, Position> = HashMap::new();
    let mut out = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Some(name) = key_text(key, field, report) else {
            continue;
        };
        if let Some(first) = seen.get(name) {
            let message = format!(
                "the key {} is here for the second time, after line {}",
                quoted(name),
                first.line
            );
            report.error(
                key.at,
                field,
                Problem::new(message, "remove or rename one of the two"),
            );
            continue;
        }
        seen.insert(name, key.at);
        out.push(Entry {
            key: name,
            key_at: key.at,
            value,
        });
    }
    Some(out)
}

fn key_text<'a>(key: &'a Node, field: &str, report: &mut Report) -> Option<&'a str> {
    match &key.value {
        Value::Scalar { text, plain: true } if text == "<<" => {
            let message = "merge keys (`<<`) are not supported";
            report.error(key.at, field, Problem::new(message, "write the keys out"));
            None
        }
        Value::Scalar { text, .. } => Some(text),
        _ => {
            let message = format!("a key is {} here", kind(key));
            let remedy = "use a single word as key, or put quotes around text with `{` or `[`";
            report.error(key.at, field, Problem::new(message, remedy));
            None
        }
    }
}

/// Warns of a key that kiln ignores.
pub(super) fn unknown_key(entry: &Entry<'_>, field: &str, known: &[&str], report: &mut Report) {
    let message = format!("unknown key {}", quoted(entry.key));
    let remedy = match nearest(entry.key, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None if entry.key.starts_with('-') => "put a blank after the `-`".to_owned(),
        None => "it is ignored: remove it".to_owned(),
    };
    report.warn(entry.key_at, field, Problem::new(message, remedy));
}
