//! What a person, or a program that reads us, sees.

mod clean;
pub mod display;
mod terminal;

use std::io::Write as _;

/// A line on standard output. A reader that has gone away is no error of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line on standard error.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "kiln: {}", clean::text(text));
}

/// A line that repeats somebody's words, without what a terminal would obey.
pub fn clean(line: &str) -> String {
    let line: String = line
        .chars()
        .map(|c| {
            if c.is_control() && c != '\x1b' {
                ' '
            } else {
                c
            }
        })
        .collect();
    clean::text(&line)
}

/// Something to know.
pub fn warning(text: &str) {
    note(&format!("warning: {text}"));
}

/// Something that ended the command.
pub fn error(text: &str) {
    note(text);
}
