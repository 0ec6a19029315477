//! What was shown of a log, and what of it is not known to be stored.
//!
//! An answer that ends as it should has been compared by the server; one that breaks off may
//! have ended with bytes that were never stored. They are the last of it, so the last are
//! kept, read again, and compared.

use bytes::Bytes;

/// At least as many bytes as a server shows before they are stored.
const KEPT: usize = (2 << 20) + (16 << 10);

/// What was shown of a log.
#[derive(Debug, Default)]
pub(super) struct Shown {
    end: u64,
    /// The last of it.
    tail: Vec<u8>,
    /// How much of the tail this answer has said again.
    again: usize,
}

impl Shown {
    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Another answer begins. Gives from where on it is to be asked for.
    pub(super) fn again(&mut self) -> u64 {
        self.again = 0;
        self.end - self.tail.len() as u64
    }

    /// The answer has ended as it should: what it said is stored. If the log was `over` before it
    /// was asked for, what it did not say again is not in the log: gives a line that says so.
    pub(super) fn ended(&mut self, over: bool) -> Option<Bytes> {
        let lost = self.tail.len() - self.again;
        if lost > 0 && !over {
            return None;
        }
        self.tail.clear();
        self.again = 0;
        self.end -= lost as u64;
        (lost > 0).then(|| {
            format!(
                "\n[kiln] the last {lost} bytes above were never stored and are not in the log\n"
            )
            .into()
        })
    }

    /// The next bytes of the answer. Gives what is to be shown: where what was shown before
    /// is not in the log, first a line that says so.
    pub(super) fn read(&mut self, bytes: &Bytes) -> [Bytes; 2] {
        let known = &self.tail[self.again..];
        let same = known.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let mut notice = Bytes::new();
        if same < known.len().min(bytes.len()) {
            let lost = known.len() - same;
            notice = format!(
                "\n[kiln] the last {lost} bytes above were never stored and are not in the log, which goes on so:\n"
            )
            .into();
            self.tail.truncate(self.again + same);
            self.end -= lost as u64;
        }
        self.again += same;
        let new = bytes.slice(same..);
        if !new.is_empty() {
            self.tail.extend_from_slice(&new);
            self.end += new.len() as u64;
            // Not for each piece: what stays has to be moved.
            if self.tail.len() > 2 * KEPT {
                self.tail.drain(..self.tail.len() - KEPT);
            }
            self.again = self.tail.len();
        }
        [notice, new]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(shown: &mut Shown, text: &str) -> String {
        let bytes = shown
            .read(&Bytes::copy_from_slice(text.as_bytes()))
            .concat();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_said_again_is_shown_once() {
        let mut shown = Shown::default();
        assert_eq!(read(&mut shown, "one "), "one ");
        assert_eq!(read(&mut shown, "two "), "two ");
        assert_eq!(shown.again(), 0);
        for (said, new) in [
            ("on", ""),
            ("e tw", ""),
            ("o three ", "three "),
            ("four", "four"),
        ] {
            assert_eq!(read(&mut shown, said), new);
        }
        assert_eq!(shown.end(), 18);
    }

    #[test]
    fn what_was_never_stored_is_told_and_the_truth_follows() {
        let mut shown = Shown::default();
        read(&mut shown, "stored, early");
        shown.again();
        assert_eq!(read(&mut shown, "stored, "), "");
        let said = read(&mut shown, "otherwise");
        assert!(
            said.starts_with("\n[kiln] the last 5 bytes above"),
            "{said}"
        );
        assert!(said.ends_with(":\notherwise"), "{said}");
        assert_eq!(shown.end(), 17);
        assert_eq!(read(&mut shown, "."), ".");
        shown.again();
        assert_eq!(read(&mut shown, "stored, otherwise. And on"), " And on");
    }

    #[test]
    fn what_an_answer_has_proven_is_not_asked_for_again() {
        let mut shown = Shown::default();
        read(&mut shown, "one");
        assert_eq!(shown.ended(false), None);
        assert_eq!(shown.again(), 3);
        assert_eq!(read(&mut shown, "two"), "two");
    }

    #[test]
    fn what_is_not_in_a_log_that_ends_before_it_is_told_once_the_log_is_over() {
        let mut shown = Shown::default();
        read(&mut shown, "stored, early");
        // A server ended: what it had not seen yet may come.
        shown.again();
        assert_eq!(read(&mut shown, "stored, "), "");
        assert_eq!(shown.ended(false), None);
        assert_eq!(shown.again(), 0);
        assert_eq!(read(&mut shown, "stored, "), "");
        let told = String::from_utf8(shown.ended(true).unwrap().to_vec()).unwrap();
        assert!(
            told.starts_with("\n[kiln] the last 5 bytes above were never stored"),
            "{told}"
        );
        assert_eq!((shown.end(), shown.again()), (8, 8));
    }

    #[test]
    fn no_more_is_kept_than_may_be_unproven() {
        let mut shown = Shown::default();
        for _ in 0..50 {
            shown.read(&Bytes::from(vec![b'x'; 100_000]));
        }
        assert!((KEPT..=2 * KEPT).contains(&shown.tail.len()));
        assert_eq!(shown.again(), 5_000_000 - shown.tail.len() as u64);
    }
}
