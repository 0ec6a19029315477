//! The variables of `environment`: their names, and what YAML's values become.
//!
//! # What a plain value means
//!
//! YAML 1.1 reads `yes` as true, `012` as ten, `1e3` as a thousand and `22:22` as 1342, YAML
//! 1.2 does not, and the readers that upstream uses disagree. kiln takes what nobody can
//! misread: **what was written is what the task sees**. `true` and `false` (in YAML's three
//! spellings) become `true` and `false`; `null`, `~` and nothing become the empty text; numbers
//! keep their digits, so that `3.10` stays `3.10`; everything else is text. Where a YAML 1.1
//! reader would have seen another value, there is a warning that says so.

use std::fmt;

use super::diagnostic::{Problem, Report, quoted};
use super::read;
use super::yaml::{Node, Value};

/// The name of a variable: `^[A-Za-z_][A-Za-z0-9_]*$`, because it stands after `export`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvName(String);

impl EnvName {
    /// Checks a name.
    ///
    /// # Errors
    /// When a shell could not have a variable of that name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let mut chars = name.chars();
        let first = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Ok(Self(name.to_owned()));
        }
        Err(Problem::new(
            format!("{} cannot be the name of a variable", quoted(name)),
            "use letters, digits and `_`, and begin with a letter or `_`",
        ))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a variable. No text in it has a NUL character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Text, as it was written.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A decimal number, as it was written: `-?digits[.digits]` without leading zeros.
    Number(String),
    /// Nothing: the variable is there, and empty.
    Null,
    /// Texts for a bash array, which cannot be exported.
    List(Vec<String>),
}

/// One entry of `environment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name, unique in the manifest.
    pub name: EnvName,
    /// Its value.
    pub value: EnvValue,
}

/// Names that bash keeps read-only or sets itself: an assignment fails or is lost.
const KEPT_BY_BASH: &[&str] = &[
    "BASHOPTS",
    "BASHPID",
    "BASH_VERSINFO",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// Reads the mapping `environment`.
pub(super) fn read_environment(node: &Node, report: &mut Report) -> Vec<Variable> {
    let entries = read::mapping(node, "environment", report, "NAME: value").unwrap_or_default();
    let mut variables = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = match EnvName::parse(entry.key) {
            Ok(name) => name,
            Err(problem) => {
                report.error(entry.key_at, "environment", problem);
                continue;
            }
        };
        let field = format!("environment.{name}");
        if KEPT_BY_BASH.contains(&name.as_str()) {
            let message = format!("bash does not let `{name}` be set");
            report.warn(
                entry.key_at,
                &field,
                Problem::new(message, "use another name"),
            );
        }
        if let Some(value) = read_value(entry.value, &field, report) {
            variables.push(Variable { name, value });
        }
    }
    variables
}

fn read_value(node: &Node, field: &str, report: &mut Report) -> Option<EnvValue> {
    match &node.value {
        Value::Scalar { text, plain } => {
            refuse_nul(text, node, field, report)?;
            if *plain && yaml_1_1_differs(text) {
                let message = format!("{} is passed on as it is written here", quoted(text));
                let remedy = "put it in quotes, so that every reader of YAML does the same";
                report.warn(node.at, field, Problem::new(message, remedy));
            }
            Some(if *plain {
                plain_value(text)
            } else {
                EnvValue::Text(text.clone())
            })
        }
        Value::Sequence(items) => {
            let texts = items.iter().enumerate().filter_map(|(index, item)| {
                let field = format!("{field}[{index}]");
                let text = read::text(item, &field, report)?;
                refuse_nul(text, item, &field, report)?;
                Some(text.to_owned())
            });
            Some(EnvValue::List(texts.collect()))
        }
        Value::Mapping(_) => {
            let message = "a variable cannot be a mapping";
            let remedy = "write one text or a list of texts, in quotes if it contains `: ` or `{`";
            report.error(node.at, field, Problem::new(message, remedy));
            None
        }
    }
}

fn refuse_nul(text: &str, node: &Node, field: &str, report: &mut Report) -> Option<()> {
    if text.contains('\0') {
        let problem = Problem::new("no variable can hold a NUL character", "remove the `\\0`");
        report.error(node.at, field, problem);
        return None;
    }
    Some(())
}

fn plain_value(text: &str) -> EnvValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => EnvValue::Null,
        "true" | "True" | "TRUE" => EnvValue::Bool(true),
        "false" | "False" | "FALSE" => EnvValue::Bool(false),
        _ if is_number(text) => EnvValue::Number(text.to_owned()),
        _ => EnvValue::Text(text.to_owned()),
    }
}

/// Whether the text is a number that every reader takes for the same one.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leading_zero && fraction.is_none_or(digits)
}

/// Whether a YAML 1.1 reader takes this plain text for something else than its characters.
///
/// `3.10` is not among them: it is a float to every reader, and passed on "as is" (reference).
fn yaml_1_1_differs(text: &str) -> bool {
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | ".inf" | "-.inf" | "+.inf" | ".nan"
    );
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit());
    word || (numeric && !is_number(text) && is_odd_number(unsigned))
}

/// Octal, hexadecimal and binary numbers, exponents, sixties, and digits grouped by `_`.
fn is_odd_number(unsigned: &str) -> bool {
    let based = ["0x", "0o", "0b"].iter().any(|prefix| {
        unsigned.strip_prefix(prefix).is_some_and(|digits| {
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit() || c == '_')
        })
    });
    let sixties = unsigned.contains(':')
        && unsigned.split(':').all(|part| part.parse::<u64>().is_ok())
        && unsigned.split(':').skip(1).all(|part| part.len() <= 2);
    based || sixties || unsigned.replace('_', "").parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_for_yes_and_no_stay_text() {
        for word in ["yes", "no", "on", "off", "Yes", "OFF", "y", "n"] {
            assert_eq!(plain_value(word), EnvValue::Text(word.to_owned()));
            assert!(yaml_1_1_differs(word), "{word}");
        }
    }

    #[test]
    fn numbers_that_readers_disagree_about_stay_text() {
        for text in [
            "012", "1e3", "22:22", "0x1f", "1_000", "+5", ".5", "5.", ".inf", "1:02:03",
        ] {
            assert_eq!(plain_value(text), EnvValue::Text(text.to_owned()));
            assert!(yaml_1_1_differs(text), "{text}");
        }
    }

    #[test]
    fn a_number_keeps_its_digits() {
        for text in [
            "3.10",
            "0",
            "-1",
            "10",
            "1.0",
            "123456789012345678901234567890",
        ] {
            assert_eq!(plain_value(text), EnvValue::Number(text.to_owned()));
            assert!(!yaml_1_1_differs(text), "{text}");
        }
    }

    #[test]
    fn ordinary_text_is_no_trap() {
        for text in [
            "1.2.3",
            "host:22",
            "/dev/null",
            "v1",
            "2026-11-20",
            "1.2-rc1",
            "true",
            "3:x",
        ] {
            assert!(!yaml_1_1_differs(text), "{text}");
        }
    }

    #[test]
    fn a_name_is_one_a_shell_can_export() {
        assert!(EnvName::parse("_A1").is_ok());
        for name in ["", "1A", "A-B", "A B", "É", "A=B", "A\n"] {
            assert!(EnvName::parse(name).is_err(), "{name:?}");
        }
    }
}
