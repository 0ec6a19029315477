//! Finds the end of a command's output.
//!
//! sshd tells a command's exit status on its own, unordered with the output,
//! and the output itself has no end while something in the background holds
//! it. So the command line that we send prints a marker after the command has
//! exited, into the same stream: what came before it is the whole output. A
//! job that forges the marker ends its own command, nothing else.

/// What a marker begins with. A zero byte is rare in text, so the search
/// mostly skips.
const START: u8 = 0;
/// The digits of the exit status.
const STATUS_LEN: usize = 3;

/// Looks for one marker in a stream of pieces.
pub(crate) struct Scanner {
    marker: Vec<u8>,
    /// The end of what was seen, when it may be a marker's beginning.
    held: Vec<u8>,
    /// Whether an opening marker must come first.
    skipping: bool,
}

/// What a piece held.
pub(crate) struct Scanned {
    /// Output that is certainly no marker.
    pub output: Vec<u8>,
    /// The exit status, when the end was in it.
    pub status: Option<u32>,
}

impl Scanner {
    /// For output that ends with this nonce's closing marker; `skip_until_open`
    /// drops what the login shell's start-up files say before the command.
    pub fn new(nonce: &str, skip_until_open: bool) -> Self {
        let mut marker = vec![START];
        marker.extend(nonce.as_bytes());
        marker.push(b':');
        Self {
            marker,
            held: Vec::new(),
            skipping: skip_until_open,
        }
    }

    /// The words for `printf` that print a marker; `%03d` is the status.
    pub fn printf_format(nonce: &str) -> String {
        format!("\\000{nonce}:%03d")
    }

    pub fn push(&mut self, piece: &[u8]) -> Scanned {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let whole = self.marker.len() + STATUS_LEN;
        let mut from = 0;
        let mut search = 0;
        while let Some(at) = find(&bytes, START, search) {
            let rest = bytes.get(at..).unwrap_or_default();
            let compared = rest.len().min(self.marker.len());
            if rest.get(..compared) != self.marker.get(..compared) {
                search = at + 1;
                continue;
            }
            if rest.len() < whole {
                // It may be one: keep it for the next piece.
                let held = bytes.split_off(at);
                let output = self.visible(bytes.get(from..));
                self.held = held;
                return Scanned {
                    output,
                    status: None,
                };
            }
            let status = number(rest.get(self.marker.len()..whole).unwrap_or_default());
            if self.skipping {
                self.skipping = false;
                from = at + whole;
                search = from;
                continue;
            }
            if let Some(status) = status {
                let output = self.visible(bytes.get(from..at));
                let status = Some(status);
                return Scanned { output, status };
            }
            search = at + 1;
        }
        let output = self.visible(bytes.get(from..));
        Scanned {
            output,
            status: None,
        }
    }

    /// What was held back when the stream ended without a marker.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.visible(Some(&held))
    }

    fn visible(&self, bytes: Option<&[u8]>) -> Vec<u8> {
        if self.skipping {
            Vec::new()
        } else {
            bytes.unwrap_or_default().to_vec()
        }
    }
}

fn find(bytes: &[u8], byte: u8, from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.iter().position(|&b| b == byte)?;
    Some(from + found)
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Scanner;
    use proptest::prelude::*;

    fn feed(scanner: &mut Scanner, pieces: &[&[u8]]) -> (Vec<u8>, Option<u32>) {
        let mut output = Vec::new();
        for piece in pieces {
            let scanned = scanner.push(piece);
            output.extend(scanned.output);
            if scanned.status.is_some() {
                return (output, scanned.status);
            }
        }
        output.extend(scanner.finish());
        (output, None)
    }

    #[test]
    fn what_a_login_shell_says_first_is_no_data() {
        let mut scanner = Scanner::new("abc", true);
        let seen = feed(
            &mut scanner,
            &[b"hello from bashrc\n\0ab", b"c:000data\0abc:000"],
        );
        assert_eq!(seen, (b"data".to_vec(), Some(0)));
    }

    #[test]
    fn a_stream_that_ends_inside_a_marker_loses_nothing() {
        let mut scanner = Scanner::new("abc", false);
        assert_eq!(feed(&mut scanner, &[b"x\0ab"]), (b"x\0ab".to_vec(), None));
    }

    proptest! {
        #[test]
        fn any_output_cut_anywhere_comes_through_whole(
            output in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b':'), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0usize..340, 0..8),
            status in 0u32..256,
            opened in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            if opened {
                stream.extend(b"noise\0\0aa");
                stream.extend(b"\0aab:000");
            }
            stream.extend(&output);
            stream.extend(format!("\0aab:{status:03}").bytes());
            stream.extend(b"later");
            prop_assume!(!output.windows(5).any(|w| w == b"\0aab:"));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            let mut scanner = Scanner::new("aab", opened);
            prop_assert_eq!(feed(&mut scanner, &pieces), (output, Some(status)));
        }
    }
}
