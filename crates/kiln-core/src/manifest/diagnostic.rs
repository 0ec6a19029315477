//! What is wrong with a manifest, where, and what to do about it.
//!
//! Value parsers return a [`Problem`], which knows nothing of files. The reader of a manifest
//! adds the place and makes it a [`Diagnostic`]; a [`Report`] collects them.

use std::fmt;

/// More errors than this in one file help nobody, and an unlimited number of them would let a
/// small file make a large answer.
pub(super) const MAX_DIAGNOSTICS: usize = 64;

/// How much of a user's text a message repeats, in characters.
const MAX_QUOTED: usize = 60;

/// Whether a diagnostic stops the manifest from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The manifest is refused.
    Error,
    /// The manifest is used, but it may not do what its author thinks.
    Warning,
}

/// One thing wrong with a value: a sentence that says what, and one that says what to do.
/// Both are plain English without a final stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem from its two sentences.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// A place in the text of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1. In a file whose indentation had to be freed of tabs
    /// first, each such tab counts up to the next multiple of eight.
    pub column: usize,
}

/// A [`Problem`] and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the manifest can still be used.
    pub severity: Severity,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The value meant, such as `image` or `tasks[2]` (list entries count from 0); empty when
    /// the text as a whole is meant.
    pub field: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// The diagnostics found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
    failed: bool,
}

impl Report {
    /// Records something that makes the manifest unusable.
    pub(super) fn error(&mut self, at: Position, field: &str, problem: Problem) {
        self.failed = true;
        self.push(Severity::Error, at, field, problem);
    }

    /// Records something the author should look at.
    pub(super) fn warn(&mut self, at: Position, field: &str, problem: Problem) {
        self.push(Severity::Warning, at, field, problem);
    }

    fn push(&mut self, severity: Severity, at: Position, field: &str, problem: Problem) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            // An error is worth more than a warning: it must not be crowded out by them.
            let warning = |d: &Diagnostic| d.severity == Severity::Warning;
            match self.diagnostics.iter().rposition(warning) {
                Some(index) if severity == Severity::Error => {
                    self.diagnostics.remove(index);
                }
                _ => return,
            }
        }
        self.diagnostics.push(Diagnostic {
            severity,
            line: at.line,
            column: at.column,
            field: shown(field),
            message: problem.message,
            remedy: problem.remedy,
        });
    }

    /// Whether an error was recorded.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Everything recorded, in the order of the text.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| (d.line, d.column));
        self.diagnostics
    }
}

/// The user's own text for use inside a message, in backticks.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// A text as a message can show it: shortened, and without characters that could move a
/// terminal's cursor.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MAX_QUOTED {
            out.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Format characters that reorder or hide the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Refuses control characters, which have no place in a name, an address or a path.
pub(super) fn refuse_control(text: &str, what: &str) -> Result<(), Problem> {
    if text.chars().any(char::is_control) {
        return Err(Problem::new(
            format!("the {what} {} has a control character in it", quoted(text)),
            "remove it, and write the value on one line",
        ));
    }
    Ok(())
}
