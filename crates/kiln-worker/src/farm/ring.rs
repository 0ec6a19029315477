//! A queue of bytes in a file of fixed length: what is written past its end goes
//! to its beginning, where what was read has left room.

use std::{fs::File, io, os::unix::fs::FileExt};

/// The queue. The file's content is nobody else's: it ends with the process.
pub(super) struct Ring {
    file: File,
    capacity: u64,
    /// Where reading is, counted from the first byte ever written.
    read: u64,
    /// Where writing is, likewise: at most `capacity` ahead.
    written: u64,
}

impl Ring {
    /// An empty one. The disk's space is taken now where that is possible, so that
    /// a full disk shows before a job has begun.
    pub fn new(file: File, capacity: u64) -> io::Result<Self> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, capacity) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            file,
            capacity,
            read: 0,
            written: 0,
        })
    }

    pub fn len(&self) -> u64 {
        self.written - self.read
    }

    pub fn free(&self) -> u64 {
        self.capacity - self.len()
    }

    /// Adds bytes behind all others: all of them, or nothing.
    ///
    /// # Errors
    /// The file's, and when there is no room for them.
    pub fn push(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length as u64 > self.free() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut at = self.written;
        for part in parts {
            for (place, range) in self.places(at, part.len()) {
                self.file.write_all_at(&part[range], place)?;
            }
            at += part.len() as u64;
        }
        self.written = at;
        Ok(())
    }

    /// Reads what is so many bytes behind the first, which stays.
    ///
    /// # Errors
    /// The file's, and when there are not so many.
    pub fn peek(&self, behind: u64, into: &mut [u8]) -> io::Result<()> {
        if behind + into.len() as u64 > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (place, range) in self.places(self.read + behind, into.len()) {
            self.file.read_exact_at(&mut into[range], place)?;
        }
        Ok(())
    }

    /// Removes the first so many bytes.
    pub fn pop(&mut self, bytes: u64) {
        self.read += bytes.min(self.len());
    }

    /// Where in the file so many bytes are: in one piece, or in two.
    fn places(
        &self,
        at: u64,
        length: usize,
    ) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> + use<> {
        let place = at % self.capacity;
        let before_end = usize::try_from(self.capacity - place).unwrap_or(usize::MAX);
        let first = length.min(before_end);
        [(place, 0..first), (0, first..length)]
            .into_iter()
            .filter(|(_, range)| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn ring(capacity: u64) -> Ring {
        Ring::new(tempfile::tempfile().unwrap(), capacity).unwrap()
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_whatever_the_sizes(
            capacity in 1_u64..64,
            steps in proptest::collection::vec((0_usize..40, 0_u64..40, 0_u64..8), 0..60),
        ) {
            let mut ring = ring(capacity);
            let mut model = VecDeque::new();
            let mut next = 0_u8;
            for (push, pop, behind) in steps {
                let bytes: Vec<u8> = (0..push).map(|_| { next = next.wrapping_add(1); next }).collect();
                let (first, second) = bytes.split_at(push / 3);
                let fits = bytes.len() as u64 <= ring.free();
                prop_assert_eq!(ring.push(&[first, second]).is_ok(), fits);
                if fits {
                    model.extend(bytes);
                }
                prop_assert_eq!(ring.len(), model.len() as u64);
                let behind = behind.min(ring.len());
                let mut seen = vec![0; usize::try_from(ring.len() - behind).unwrap()];
                ring.peek(behind, &mut seen).unwrap();
                let expected: Vec<u8> = model.iter().copied().skip(behind as usize).collect();
                prop_assert_eq!(seen, expected);
                ring.pop(pop);
                model.drain(..(pop as usize).min(model.len()));
            }
        }
    }

    #[test]
    fn more_than_there_is_can_t_be_read() {
        let mut ring = ring(8);
        ring.push(&[b"abc"]).unwrap();
        assert!(ring.peek(1, &mut [0; 3]).is_err());
    }
}
