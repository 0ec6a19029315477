//! The end of an output that nobody may want to see: a console, QEMU's or a
//! script's standard error. Bounded, whatever comes.

use std::{collections::VecDeque, fmt};

/// What is kept.
const KEPT: usize = 16 * 1024;
/// What is shown of it.
const SHOWN_LINES: usize = 12;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes
            .get(bytes.len().saturating_sub(KEPT)..)
            .unwrap_or_default();
        let excess = (self.0.len() + bytes.len()).saturating_sub(KEPT);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }

    pub fn contains(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// As the end of a sentence: empty, or a colon and the last lines.
    pub fn said(&self) -> String {
        let lines = self.to_string();
        if lines.is_empty() {
            lines
        } else {
            format!(":\n{lines}")
        }
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The last lines, fit for a terminal: control characters are dropped.
impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let clean = |line: &str| -> String {
            line.chars()
                .filter(|c| *c == '\t' || !c.is_control())
                .collect()
        };
        let lines: Vec<String> = text
            .lines()
            .map(clean)
            .filter(|line| !line.trim().is_empty())
            .collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..);
        f.write_str(&shown.unwrap_or_default().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_said_is_shown_in_few_lines_without_controls(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..30)) {
            let mut tail = Tail::new();
            pieces.iter().for_each(|piece| tail.push(piece));
            prop_assert!(tail.0.len() <= KEPT);
            let shown = tail.to_string();
            prop_assert!(shown.lines().count() <= SHOWN_LINES);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\t' && c != '\n'));
        }
    }

    #[test]
    fn a_flood_leaves_only_its_end() {
        let mut tail = Tail::new();
        for _ in 0..1000 {
            tail.push(&[b'x'; 1000]);
        }
        tail.push(b"\nthe \x1b[1mend\n");
        assert_eq!(tail.0.len(), KEPT);
        assert!(tail.to_string().ends_with("the [1mend"));
    }
}
