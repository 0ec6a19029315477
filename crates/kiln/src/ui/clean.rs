//! Makes a guest's bytes fit for a terminal.
//!
//! A log may hold any escape sequence: ones that retitle the window, answer as
//! if typed, or hide what was written. Colours and bold pass (`ESC [ … m`);
//! everything else that is no text goes.

/// The longest colour sequence that makes sense.
const MAX_SEQUENCE: usize = 32;
/// The longest sequence that is swallowed. One without an end must not take
/// the rest of the log with it, nor may one that goes past its line.
const MAX_SWALLOWED: usize = 4096;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In `ESC [ …`, which may still be a colour.
    Control,
    /// In one that is none.
    OtherControl,
    /// After the first byte of U+0080 to U+009F, or of U+00A0 to U+00BF.
    Latin,
    /// In a string that ends with BEL or ESC \.
    String,
    /// After ESC inside one.
    StringEscape,
}

/// Cleans a stream piece by piece.
#[derive(Debug, Default)]
pub struct Cleaner {
    state: State,
    sequence: Vec<u8>,
    /// How long the open sequence is that shows nothing.
    swallowed: usize,
}

impl Cleaner {
    /// What of these bytes may be shown.
    pub fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.push(byte, &mut out);
        }
        out
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.swallowed = match self.state {
            State::OtherControl | State::String | State::StringEscape => self.swallowed + 1,
            _ => 0,
        };
        if self.swallowed > MAX_SWALLOWED {
            self.state = State::Text;
        }
        self.state = match (self.state, byte) {
            (State::Text, 0x1b) => State::Escape,
            (State::Text, 0xc2) => State::Latin,
            (State::Latin, 0x80..=0x9f) => State::Text,
            (State::Latin, _) => {
                out.push(0xc2);
                self.state = State::Text;
                return self.push(byte, out);
            }
            (_, b'\n') => {
                out.push(byte);
                State::Text
            }
            (State::Text, b'\t' | b'\r' | 0x20..=0x7e | 0x80..) => {
                out.push(byte);
                State::Text
            }
            (State::Text, _) => State::Text,
            (State::Escape, b'[') => {
                self.sequence.clear();
                State::Control
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape, _) => State::Text,
            (State::Control | State::OtherControl, _) => self.control(byte, out),
            (State::String, 0x07) => State::Text,
            (State::String, 0x1b) => State::StringEscape,
            (State::String, _) => State::String,
            (State::StringEscape, b'\\') => State::Text,
            (State::StringEscape, _) => State::String,
        };
    }

    /// A byte of `ESC [ …`.
    fn control(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match (self.state, byte) {
            (State::Control, b'0'..=b'9' | b';' | b':') if self.sequence.len() < MAX_SEQUENCE => {
                self.sequence.push(byte);
                State::Control
            }
            (State::Control, b'm') => {
                out.extend(b"\x1b[");
                out.extend(&self.sequence);
                out.push(b'm');
                State::Text
            }
            // Parameters that no colour has: swallow up to the final byte.
            (State::Control | State::OtherControl, 0x20..=0x3f) => State::OtherControl,
            _ => State::Text,
        }
    }
}

/// A sentence of ours that repeats somebody's words.
pub fn text(text: &str) -> String {
    String::from_utf8_lossy(&Cleaner::default().clean(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_pass_and_everything_else_goes() {
        let log = b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b[2J\x1b[?1049h\x1bP+q\x1b\\a\x00\x08\x07b\x1b[6n";
        assert_eq!(Cleaner::default().clean(log), b"\x1b[1;31mred\x1b[0m ab");
    }

    #[test]
    fn a_sequence_cut_in_two_is_still_one() {
        let mut cleaner = Cleaner::default();
        let mut out = cleaner.clean(b"a\x1b[3");
        out.extend(cleaner.clean(b"2mb\x1b]0;"));
        out.extend(cleaner.clean(b"title\x07c"));
        assert_eq!(out, b"a\x1b[32mbc");
    }

    #[test]
    fn a_colour_with_parameters_of_its_own_is_dropped_whole() {
        assert_eq!(Cleaner::default().clean(b"\x1b[>4;2mx"), b"x");
    }

    #[test]
    fn a_sequence_without_an_end_hides_no_more_than_its_line_or_4_kib() {
        for open in ["\x1b]0;", "\x1bP", "\x1b[", "\x1b[?", "\x1b", "\x1b]x\x1b"] {
            let log = format!("a{open}1\nb");
            let shown = Cleaner::default().clean(log.as_bytes());
            assert!(shown.ends_with(b"\nb"), "{open:?}: {shown:?}");
        }
        for open in ["\x1b]0;", "\x1b[?"] {
            let log = format!("{open}{}", "1".repeat(MAX_SWALLOWED + 10));
            let shown = Cleaner::default().clean(log.as_bytes());
            assert!((5..20).contains(&shown.len()), "{open:?}: {}", shown.len());
        }
    }

    #[test]
    fn letters_of_all_languages_pass_and_controls_of_eight_bits_go() {
        let text = "näïve £5 日本 \u{9b}2J";
        assert_eq!(
            Cleaner::default().clean(text.as_bytes()),
            "näïve £5 日本 2J".as_bytes()
        );
    }
}
