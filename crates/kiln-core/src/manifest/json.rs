//! The normalised form of a manifest: JSON with always the same keys in the same order.

use serde_json::{Map, Value, json};

use super::fields::KEYS;
use super::{Action, EnvValue, Manifest, SecretRef, Source, Task, Trigger};

/// See [`Manifest::to_json`].
pub(super) fn normalised(manifest: &Manifest) -> Value {
    let mut object = Map::new();
    for key in KEYS {
        object.insert(key.to_owned(), field(manifest, key));
    }
    Value::Object(object)
}

fn field(manifest: &Manifest, key: &str) -> Value {
    match key {
        "image" => json!(manifest.image.as_str()),
        "arch" => json!(manifest.arch.as_ref().map(super::Arch::as_str)),
        "packages" => json!(manifest.packages),
        "repositories" => manifest.repositories.as_ref().map_or(Value::Null, |list| {
            object(list.iter().map(|r| (r.name.as_str(), json!(r.source))))
        }),
        "sources" => array(manifest.sources.as_deref(), |s| json!(Source::as_str(s))),
        "environment" => manifest.environment.as_ref().map_or(Value::Null, |list| {
            object(list.iter().map(|v| (v.name.as_str(), env_value(&v.value))))
        }),
        "secrets" => array(manifest.secrets.as_deref(), |s| json!(SecretRef::as_str(s))),
        "tasks" => array(manifest.tasks.as_deref(), task),
        "triggers" => array(manifest.triggers.as_deref(), trigger),
        "shell" => json!(manifest.shell),
        "artifacts" => json!(manifest.artifacts),
        "oauth" => json!(manifest.oauth),
        _ => Value::Null,
    }
}

fn array<T>(list: Option<&[T]>, one: impl Fn(&T) -> Value) -> Value {
    list.map_or(Value::Null, |list| {
        Value::Array(list.iter().map(one).collect())
    })
}

fn object<'a>(entries: impl Iterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(
        entries
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

fn task(task: &Task) -> Value {
    object(std::iter::once((task.name.as_str(), json!(task.script))))
}

/// The keys of a trigger that it doesn't have are left out.
fn trigger(trigger: &Trigger) -> Value {
    let (action, fields) = trigger_fields(&trigger.action);
    let head = [
        ("action", json!(action)),
        ("condition", json!(trigger.condition.as_str())),
    ];
    let rest = fields.into_iter().map(|(key, value)| (key, json!(value)));
    object(head.into_iter().chain(rest))
}

/// The word for an action, and its keys that have a value.
pub(super) fn trigger_fields(action: &Action) -> (&'static str, Vec<(&'static str, &str)>) {
    match action {
        Action::Webhook { url } => ("webhook", vec![("url", url)]),
        Action::Email {
            to,
            cc,
            in_reply_to,
        } => {
            let all = [("to", to), ("cc", cc), ("in_reply_to", in_reply_to)];
            let given = all
                .into_iter()
                .filter_map(|(key, v)| Some((key, v.as_deref()?)));
            ("email", given.collect())
        }
    }
}

fn env_value(value: &EnvValue) -> Value {
    match value {
        EnvValue::Text(text) => json!(text),
        EnvValue::Bool(value) => json!(value),
        EnvValue::Number(digits) => number(digits),
        EnvValue::Null => Value::Null,
        EnvValue::List(texts) => json!(texts),
    }
}

/// A JSON number when JSON would print the same digits: `3.10` must not become `3.1`.
fn number(digits: &str) -> Value {
    match serde_json::from_str::<serde_json::Number>(digits) {
        Ok(number) if number.to_string() == digits => Value::Number(number),
        _ => json!(digits),
    }
}
