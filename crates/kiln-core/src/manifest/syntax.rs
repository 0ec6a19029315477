//! The YAML parser's complaints in words that help somebody who doesn't know YAML's grammar.

use saphyr_parser::ScanError;

use super::diagnostic::{Position, Problem, quoted};
use super::text::Located;
use super::yaml::position;

/// A phrase of the parser's, what it means, and what to do. The first match is taken.
const EXPLANATIONS: &[(&str, &str, &str)] = &[
    (
        "unknown anchor",
        "text that begins with `*` is an alias in YAML, and nothing has that name",
        "put quotes around it",
    ),
    (
        "anchor or alias",
        "`&` and `*` have a meaning of their own in YAML",
        "put quotes around text that begins with one",
    ),
    (
        "recursion limit",
        "brackets are nested too deep",
        "a manifest needs four levels: remove the surplus ones",
    ),
    (
        "mapping values are not allowed",
        "there is a `:` where no key can be",
        "put quotes around text that contains `: `, or check the indentation",
    ),
    (
        "tab",
        "there is a tab where YAML wants spaces",
        "indent with spaces",
    ),
    (
        "indentation in quoted scalar",
        "a quoted text that begins here or before is not closed",
        "close the quotes, or indent the lines over which the text goes on",
    ),
    (
        "quoted scalar, found unexpected",
        "a quoted text is not closed",
        "close the quotes, and double a `'` that is inside single quotes",
    ),
    (
        "trailing content after double-quoted",
        "there is text after the closing quotes",
        "put the whole text inside the quotes, or inside none",
    ),
    (
        "unknown escape",
        "this `\\` escape is not known in YAML's double quotes",
        "use single quotes, or double the `\\`",
    ),
    (
        "did not find expected '-'",
        "this line is neither a `- ` entry of the list above it nor outside it",
        "align it with the list, or give it the indentation of the key it belongs to",
    ),
    (
        "block mapping, did not find expected key",
        "this line is not a `key: value` of the mapping it stands in",
        "check the indentation, and put quotes around text that begins with `[` or a quote",
    ),
    (
        "simple key expect",
        "this line or the one before it is not a `key: value`",
        "add the `: `, or check the indentation",
    ),
    (
        "expected ',' or",
        "a `[` or `{` is not closed, or a `,` is missing",
        "close the bracket, or put quotes around text that contains brackets",
    ),
    (
        "illegal placement of ':'",
        "there is a `:` inside brackets where it cannot be",
        "close the `[` or `{` before it, or put quotes around the text",
    ),
    (
        "block sequence entries are not allowed",
        "a `- ` entry cannot be here",
        "put the list on lines of its own below the key",
    ),
    (
        "wasn't declared",
        "text that begins with `!` is a tag in YAML, and this one is unknown",
        "put quotes around it",
    ),
    (
        "block scalar",
        "the text after `|` or `>` is not what YAML expects",
        "begin the text on the next line, and indent it deeper than its key",
    ),
    (
        "indentation",
        "the indentation of this line fits nothing above it",
        "align it with the lines it belongs to",
    ),
];

/// The error as a place and a problem.
pub(super) fn explain(error: &ScanError, text: &str) -> Located {
    let at = position(error.marker());
    let info = error.info();
    if let Some(problem) = reserved_character(at, text) {
        return (at, problem);
    }
    let known = EXPLANATIONS
        .iter()
        .find(|(phrase, _, _)| info.contains(phrase));
    let problem = match known {
        Some((_, message, remedy)) => Problem::new(*message, *remedy),
        None => Problem::new(
            format!("this is not valid YAML ({info})"),
            "check the indentation and the quotes of this line and of the one before it",
        ),
    };
    (at, problem)
}

/// `@`, `%` and the backtick begin no text in YAML.
fn reserved_character(at: Position, text: &str) -> Option<Problem> {
    let line = text.lines().nth(at.line - 1)?;
    let c = line.chars().nth(at.column - 1)?;
    matches!(c, '@' | '%' | '`').then(|| {
        let message = format!("text cannot begin with {} in YAML", quoted(&c.to_string()));
        Problem::new(message, "put quotes around it")
    })
}
