//! `?lines=a-b` of a log: lines from 1, both ends included.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How many bytes are looked at at once.
const CHUNK: usize = 64 << 10;

/// Which lines: the first and the last, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    first: u64,
    last: u64,
}

impl Lines {
    /// Reads `a-b`, `a-` or `a`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| -> Option<u64> {
            let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| all_digits)
        };
        let (first, last) = match text.split_once('-') {
            None => (number(text)?, number(text)?),
            Some((first, "")) => (number(first)?, u64::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        (first >= 1 && first <= last).then_some(Self { first, last })
    }

    /// The first one.
    pub(super) fn first(self) -> u64 {
        self.first
    }
}

/// Reads a log from somewhere before these lines on, and gives their bytes, in bounded memory.
pub(super) struct Cut<R> {
    reader: R,
    lines: Lines,
    line: u64,
}

impl<R: AsyncRead + Unpin> Cut<R> {
    /// The reader begins within this line, or at its begin: it is the first one then, or one
    /// before.
    pub(super) fn new(reader: R, line: u64, lines: Lines) -> Self {
        Self {
            reader,
            lines,
            line,
        }
    }

    /// The next bytes; none at the end of the last line.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        while self.line <= self.lines.last {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            if self.reader.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
            let (from, to) = self.within(&bytes);
            if from < to {
                return Ok(Some(bytes.freeze().slice(from..to)));
            }
        }
        Ok(None)
    }

    /// Which of these bytes are of the lines; counts the others.
    fn within(&mut self, bytes: &[u8]) -> (usize, usize) {
        let mut from = (self.line >= self.lines.first).then_some(0);
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            self.line = self.line.saturating_add(1);
            if self.line > self.lines.last {
                return (from.unwrap_or(at + 1), at + 1);
            }
            if self.line == self.lines.first {
                from = Some(at + 1);
            }
        }
        (from.unwrap_or(bytes.len()), bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn cut(text: &[u8], lines: &str) -> Vec<u8> {
        cut_from(text, 1, lines).await
    }

    async fn cut_from(text: &[u8], line: u64, lines: &str) -> Vec<u8> {
        let mut cut = Cut::new(text, line, Lines::parse(lines).unwrap());
        let mut all = Vec::new();
        while let Some(bytes) = cut.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn lines_are_counted_from_one_and_both_ends_are_included() {
        let text = b"one\ntwo\nthree\nfour";
        assert_eq!(cut(text, "1-1").await, b"one\n");
        assert_eq!(cut(text, "2-3").await, b"two\nthree\n");
        assert_eq!(cut(text, "4").await, b"four");
        assert_eq!(cut(text, "2-").await, b"two\nthree\nfour");
        assert_eq!(cut(text, "9-12").await, b"");
    }

    #[tokio::test]
    async fn who_begins_to_read_within_a_line_before_them_gets_the_same_lines() {
        let text = b"one\ntwo\n\nfour\nfive";
        for at in 0..text.len() {
            let line = text[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            for (first, lines) in [(3, "3-4"), (4, "4"), (5, "5-"), (9, "9-")] {
                if line < first {
                    let part = cut_from(&text[at..], line, lines).await;
                    assert_eq!(part, cut(text, lines).await, "{lines} from byte {at}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_range_of_lines_is_refused() {
        for wrong in ["", "-", "0-3", "3-2", "a-b", "-4", "1-2-3", "+1-2", "1,2"] {
            assert_eq!(Lines::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_is_what_counting_lines_gives(
            text in "[ab\n]{0,60}", first in 1u64..8, more in 0u64..5
        ) {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (from, to) = (first as usize - 1, (first + more) as usize);
            let expected: String = lines.iter().take(to).skip(from).copied().collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(cut(text.as_bytes(), &format!("{first}-{}", first + more)));
            prop_assert_eq!(String::from_utf8(got).unwrap(), expected);
        }
    }
}
