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

/// A line that repeats somebody's words: without what a terminal would obey, and
/// without colours, which would go on behind it.
pub fn clean(line: &str) -> String {
    let mut pieces = clean::text(line)
        .split('\x1b')
        .map(str::to_owned)
        .collect::<Vec<_>>();
    for piece in pieces.iter_mut().skip(1) {
        // What is left of sequences are colours: `[ … m`.
        *piece = piece
            .split_once('m')
            .map_or_else(String::new, |(_, rest)| rest.to_owned());
    }
    let text = pieces.concat();
    text.replace(|c: char| c.is_control(), " ")
}

/// Something to know.
pub fn warning(text: &str) {
    note(&format!("warning: {text}"));
}

/// Something that ended the command.
pub fn error(text: &str) {
    note(text);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_of_a_list_stays_one_line_without_colours() {
        let words = "a\x1b]0;evil\x07b\x1b[2J \x1b[1;31mred\x1b[0m\nnext\tcell";
        assert_eq!(super::clean(words), "ab red next cell");
    }
}
