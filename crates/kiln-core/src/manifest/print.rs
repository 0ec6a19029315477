//! A manifest as YAML that any reader of YAML 1.1 or 1.2 understands alike.
//!
//! Scripts are literal blocks where that is exact. Other texts are plain only when no reader
//! can take them for anything else, and double-quoted otherwise.

use std::fmt::Write as _;

use super::json::trigger_fields;
use super::{EnvValue, Manifest, SecretRef, Source, Task, Trigger, Variable};

/// See [`Manifest::to_yaml`].
pub(super) fn yaml(manifest: &Manifest) -> String {
    let mut out = String::new();
    field(&mut out, "image", Some(scalar(manifest.image.as_str())));
    field(
        &mut out,
        "arch",
        manifest.arch.as_ref().map(|a| scalar(a.as_str())),
    );
    texts(&mut out, "packages", manifest.packages.as_deref(), |p| p);
    if let Some(repositories) = &manifest.repositories {
        open(&mut out, "repositories", repositories.is_empty(), "{}");
        for repository in repositories {
            field(
                &mut out,
                &indented(&repository.name),
                Some(scalar(&repository.source)),
            );
        }
    }
    texts(
        &mut out,
        "sources",
        manifest.sources.as_deref(),
        Source::as_str,
    );
    if let Some(variables) = &manifest.environment {
        open(&mut out, "environment", variables.is_empty(), "{}");
        variables.iter().for_each(|v| variable(&mut out, v));
    }
    texts(
        &mut out,
        "secrets",
        manifest.secrets.as_deref(),
        SecretRef::as_str,
    );
    if let Some(tasks) = &manifest.tasks {
        open(&mut out, "tasks", tasks.is_empty(), "[]");
        tasks.iter().for_each(|t| task(&mut out, t));
    }
    if let Some(triggers) = &manifest.triggers {
        open(&mut out, "triggers", triggers.is_empty(), "[]");
        triggers.iter().for_each(|t| trigger(&mut out, t));
    }
    field(&mut out, "shell", manifest.shell.map(|s| s.to_string()));
    texts(&mut out, "artifacts", manifest.artifacts.as_deref(), |a| a);
    field(&mut out, "oauth", manifest.oauth.as_deref().map(scalar));
    out
}

fn field(out: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        push_line(out, &format!("{key}: {value}"));
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// A key of a mapping one level below the root.
fn indented(key: &str) -> String {
    format!("  {}", scalar(key))
}

fn open(out: &mut String, key: &str, empty: bool, nothing: &str) {
    let value = if empty {
        format!(" {nothing}")
    } else {
        String::new()
    };
    push_line(out, &format!("{key}:{value}"));
}

fn texts<T>(out: &mut String, key: &str, list: Option<&[T]>, text: impl Fn(&T) -> &str) {
    if let Some(list) = list {
        open(out, key, list.is_empty(), "[]");
        for item in list {
            push_line(out, &format!("- {}", scalar(text(item))));
        }
    }
}

fn variable(out: &mut String, variable: &Variable) {
    let key = indented(variable.name.as_str());
    let value = match &variable.value {
        EnvValue::Text(text) => scalar(text),
        EnvValue::Bool(value) => value.to_string(),
        EnvValue::Number(digits) => digits.clone(),
        EnvValue::Null => "null".to_owned(),
        EnvValue::List(texts) => {
            let texts: Vec<String> = texts.iter().map(|t| double_quoted(t)).collect();
            format!("[{}]", texts.join(", "))
        }
    };
    field(out, &key, Some(value));
}

fn task(out: &mut String, task: &Task) {
    let name = scalar(task.name.as_str());
    if !fits_literal_block(&task.script) {
        push_line(out, &format!("- {name}: {}", double_quoted(&task.script)));
        return;
    }
    push_line(out, &format!("- {name}: |"));
    for line in task.script.split('\n') {
        // A blank line needs no indentation, but keeps its own blanks only behind it.
        let indentation = if line.is_empty() { "" } else { "    " };
        push_line(out, &format!("{indentation}{line}"));
    }
}

/// Whether a literal block gives back exactly this script, whose ends are known to be no blanks.
fn fits_literal_block(script: &str) -> bool {
    !script.is_empty()
        && script
            .chars()
            .all(|c| c == '\n' || c == '\t' || is_ordinary(c))
}

fn trigger(out: &mut String, trigger: &Trigger) {
    let (action, fields) = trigger_fields(&trigger.action);
    push_line(out, &format!("- action: {action}"));
    push_line(out, &format!("  condition: {}", trigger.condition.as_str()));
    for (key, value) in fields {
        push_line(out, &format!("  {key}: {}", scalar(value)));
    }
}

/// A text as a scalar that is text to every reader.
fn scalar(text: &str) -> String {
    if is_safe_plain(text) {
        text.to_owned()
    } else {
        double_quoted(text)
    }
}

fn is_safe_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan",
    ];
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-./+~@:#=".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(inner)
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_ordinary(c) => out.push(c),
            c => {
                // Writing to a String never fails.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// Characters that every reader of YAML takes as they are: printable, and no line end in any
/// version of YAML.
fn is_ordinary(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}
