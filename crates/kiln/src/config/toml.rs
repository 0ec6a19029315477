//! kiln's own file: a flat table of the keys.

use std::path::Path;

use kiln_core::suggest;
use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    file::Read,
    keys::{self, Key, Kind, Role},
    values::{Source, Value},
};

/// Reads it.
///
/// # Errors
/// A sentence with the line.
pub fn read(path: &Path, text: &str, role: Role) -> Result<Read, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| line(text, span.start));
        let place = line
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        format!("{place}{}", error.message())
    })?;
    let mut read = Read::default();
    for (name, value) in table.get_ref() {
        let line = line(text, name.span().start);
        let key = known(role, name.get_ref()).map_err(|why| format!("line {line}: {why}"))?;
        let texts = texts(key, value).map_err(|why| format!("line {line}: {}: {why}", key.name))?;
        let source = Source::File(path.to_owned(), format!("line {line}"));
        read.values.insert(key.name, Value { texts, source });
    }
    Ok(read)
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

fn known(role: Role, name: &str) -> Result<&'static Key, String> {
    if let Some(key) = keys::find(role, name) {
        return Ok(key);
    }
    let other = [Role::Serve, Role::Worker]
        .into_iter()
        .find(|other| keys::find(*other, name).is_some());
    if let Some(other) = other {
        return Err(format!(
            "`{name}` is a setting of `{}` alone",
            other.command()
        ));
    }
    let names: Vec<&str> = keys::of(role).map(|key| key.name).collect();
    Err(match suggest::nearest(name, &names) {
        Some(meant) => format!("there is no setting `{name}`; did you mean `{meant}`?"),
        None => format!(
            "there is no setting `{name}`; `{} --help` lists them",
            role.command()
        ),
    })
}

fn texts(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    match (key.kind, value.get_ref()) {
        (Kind::Many, DeValue::Array(items)) => {
            items.iter().map(|item| text(item.get_ref())).collect()
        }
        (Kind::Switch, DeValue::Boolean(yes)) => Ok(vec![yes.to_string()]),
        (Kind::Switch, _) => Err("write true or false".into()),
        (_, DeValue::Array(_)) => Err("one value, not a list".into()),
        (_, value) => Ok(vec![text(value)?]),
    }
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
        _ => Err("write a text in quotes, or a number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(text: &str) -> Result<Vec<(&'static str, String)>, String> {
        let read = read(Path::new("kiln.toml"), text, Role::Serve)?;
        let values = read.values.into_iter();
        Ok(values
            .map(|(key, value)| (key, value.texts.join(" ")))
            .collect())
    }

    #[test]
    fn texts_numbers_switches_and_lists_are_read() {
        let file = "# a farm\nlisten = \"127.0.0.1:0\"\nslots = 4\nno-worker = true\nlabel = [\"a=1\", \"b=2\"]\n";
        assert_eq!(
            serve(file).unwrap(),
            [
                ("label", "a=1 b=2".to_owned()),
                ("listen", "127.0.0.1:0".to_owned()),
                ("no-worker", "true".to_owned()),
                ("slots", "4".to_owned()),
            ]
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_was_meant() {
        for (file, why) in [
            (
                "slots = 1\n\nlisen = \"x\"",
                "line 3: there is no setting `lisen`; did you mean `listen`?",
            ),
            (
                "frobnicate = 1",
                "line 1: there is no setting `frobnicate`; `kiln serve --help` lists them",
            ),
            (
                "proxy = \"x\"",
                "line 1: `proxy` is a setting of `kiln worker` alone",
            ),
            ("no-worker = 1", "line 1: no-worker: write true or false"),
            ("slots = [1]", "line 1: slots: one value, not a list"),
            (
                "slots = 1.5",
                "line 1: slots: write a text in quotes, or a number",
            ),
            ("a\nslots = ", "line 1: "),
            ("slots = 1\nslots = 2", "line 2: "),
        ] {
            let error = serve(file).unwrap_err();
            assert!(error.starts_with(why), "{file:?}: {error}");
        }
    }
}
