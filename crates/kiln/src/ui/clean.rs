//! Makes a guest's bytes fit for a terminal.
//!
//! A log may hold any escape sequence: ones that retitle the window, answer as
//! if typed, or hide what was written. Colours and bold pass (`ESC [ … m`);
//! everything else that is no text goes.

/// The longest colour sequence that makes sense.
const MAX_SEQUENCE: usize = 32;

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
        self.state = match (self.state, byte) {
            (State::Text, 0x1b) => State::Escape,
            (State::Text, 0xc2) => State::Latin,
            (State::Latin, 0x80..=0x9f) => State::Text,
            (State::Latin, _) => {
                out.push(0xc2);
                self.state = State::Text;
                return self.push(byte, out);
            }
            (State::Text, b'\n' | b'\t' | b'\r' | 0x20..=0x7e | 0x80..) => {
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
            (State::Control | State::OtherControl, _) => State::Text,
            (State::String, 0x07) => State::Text,
            (State::String, 0x1b) => State::StringEscape,
            (State::String, _) => State::String,
            (State::StringEscape, b'\\') => State::Text,
            (State::StringEscape, _) => State::String,
        };
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
    fn letters_of_all_languages_pass_and_controls_of_eight_bits_go() {
        let text = "näïve £5 日本 \u{9b}2J";
        assert_eq!(
            Cleaner::default().clean(text.as_bytes()),
            "näïve £5 日本 2J".as_bytes()
        );
    }
}
