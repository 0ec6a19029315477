//! From bytes to the text that the YAML parser sees.
//!
//! Settles everything about characters before any structure is looked at: size, encoding,
//! control characters, line ends, and tabs used as indentation.

use super::diagnostic::{Position, Problem};

/// The largest manifest that [`parse`](super::parse) reads, in bytes: far above what any farm
/// takes, and small enough to be read without a thought.
pub const MAX_BYTES: usize = 1024 * 1024;

/// A farm takes manifests of fewer characters than this (builds.sr.ht, web and REST).
pub const MAX_SUBMIT_CHARS: usize = 16_384;

/// A tab in indentation reaches to the next multiple of this many columns, as in a terminal.
const TAB_WIDTH: usize = 8;

/// A problem with the text as a whole, and its place.
pub(super) type Located = (Position, Problem);

/// Checks the bytes and returns them as text with `\n` as its only line end and without a
/// byte order mark.
pub(super) fn prepare(bytes: &[u8]) -> Result<String, Located> {
    let start = Position { line: 1, column: 1 };
    if bytes.len() > MAX_BYTES {
        let message = format!("the manifest has more than the {MAX_BYTES} bytes that kiln reads");
        let remedy = "move long scripts into files of the source repository";
        return Err((start, Problem::new(message, remedy)));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let problem = Problem::new("the text is UTF-16", "save the file as UTF-8");
        return Err((start, problem));
    }
    let text = decode(bytes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Before the look for forbidden characters, so that places are counted in these lines.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    match text.char_indices().find(|&(_, c)| !is_printable(c)) {
        Some((index, c)) => Err((end_of(&text[..index]), forbidden(c))),
        None => Ok(text),
    }
}

fn decode(bytes: &[u8]) -> Result<&str, Located> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let message = format!("the byte 0x{byte:02x} is not valid UTF-8 here");
        let problem = Problem::new(message, "save the file as UTF-8");
        (end_of(&good.replace("\r\n", "\n")), problem)
    })
}

/// What YAML allows in its text (YAML 1.2.2, `c-printable`).
fn is_printable(c: char) -> bool {
    match c {
        '\t' | '\n' | '\u{85}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    }
}

fn forbidden(c: char) -> Problem {
    let code = u32::from(c);
    Problem::new(
        format!("the control character U+{code:04X} is not allowed in YAML"),
        "remove it; in a script `printf` can make such a character",
    )
}

/// The place just after `text`.
fn end_of(text: &str) -> Position {
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    Position {
        line: text.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
    }
}

/// The text with spaces for the tabs of its indentation, or `None` when it has no such tabs.
///
/// YAML forbids tabs there; one entrance of builds.sr.ht takes them. Tabs after the
/// indentation, so all that belong to a script, stay as they are.
pub(super) fn without_indentation_tabs(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 64);
    let mut block: Option<Block<'_>> = None;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            out.push_str(line);
            continue;
        }
        let indented = leading_blanks(line);
        block = block.filter(|b| width(indented) > b.parent);
        if let Some(block) = &mut block {
            let content = *block.content.get_or_insert(indented);
            let prefix = if line.starts_with(content) {
                content
            } else {
                indented
            };
            push_spaces(&mut out, prefix);
            out.push_str(&line[prefix.len()..]);
            continue;
        }
        let markers = leading_markers(line);
        push_spaces(&mut out, markers);
        out.push_str(&line[markers.len()..]);
        if opens_block(line) {
            let parent = width(indented);
            block = Some(Block {
                parent,
                content: None,
            });
        }
    }
    (out != text).then_some(out)
}

/// A literal or folded scalar whose lines are being read.
struct Block<'a> {
    /// The indentation of the line that opened it, in columns.
    parent: usize,
    /// The blanks before its first line: what stands before every line of it.
    content: Option<&'a str>,
}

fn leading_blanks(line: &str) -> &str {
    let rest = line.trim_start_matches([' ', '\t']);
    &line[..line.len() - rest.len()]
}

/// The blanks before a line's text and the `- ` of the lists it opens.
fn leading_markers(line: &str) -> &str {
    let mut end = leading_blanks(line).len();
    while line[end..].starts_with("- ") || line[end..].starts_with("-\t") {
        end += 1;
        end += leading_blanks(&line[end..]).len();
    }
    &line[..end]
}

fn width(blanks: &str) -> usize {
    blanks.chars().fold(0, |column, c| match c {
        '\t' => (column / TAB_WIDTH + 1) * TAB_WIDTH,
        _ => column + 1,
    })
}

fn push_spaces(out: &mut String, prefix: &str) {
    let mut column = 0;
    for c in prefix.chars() {
        let next = if c == '\t' {
            (column / TAB_WIDTH + 1) * TAB_WIDTH
        } else {
            column + 1
        };
        if c == '\t' {
            out.extend(std::iter::repeat_n(' ', next - column));
        } else {
            out.push(c);
        }
        column = next;
    }
}

/// Whether the line ends in `|` or `>`, perhaps with a chomping or indentation indicator.
fn opens_block(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    let line = line.trim_end_matches(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit());
    line.strip_suffix(['|', '>'])
        .is_some_and(|before| before.ends_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_of_the_indentation_become_spaces_and_those_of_the_script_stay() {
        let text = "tasks:\n\t- build: |\n\t\tif x\n\t\t\tthen\ty\n";
        let out = without_indentation_tabs(text).expect("there are tabs");
        let eight = " ".repeat(8);
        assert_eq!(
            out,
            format!("tasks:\n{eight}- build: |\n{eight}{eight}if x\n{eight}{eight}\tthen\ty\n")
        );
    }

    #[test]
    fn a_script_indented_by_spaces_keeps_its_tabs() {
        let text = "tasks:\n  - build: |\n      all:\n      \tmake\n";
        assert_eq!(without_indentation_tabs(text), None);
    }

    #[test]
    fn the_place_of_a_bad_byte_counts_characters() {
        let (at, problem) = prepare(b"a: \xc3\xa9\r\nb: \xc3\xa9\xff").expect_err("bad byte");
        assert_eq!(at, Position { line: 2, column: 5 });
        assert!(problem.message.contains("0xff"), "{problem}");
    }

    #[test]
    fn line_ends_and_byte_order_mark_are_normalised() {
        let text = prepare(b"\xef\xbb\xbfa: 1\r\nb: 2\rc: 3\n").expect("good text");
        assert_eq!(text, "a: 1\nb: 2\nc: 3\n");
    }
}
