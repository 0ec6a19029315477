//! `Range: bytes=…` (RFC 9110, 14).

/// What part of something a request asks for: bytes [from, to).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All: no range, several, or one that is not understood.
    Whole,
    /// These bytes, at least one.
    Bytes(u64, u64),
    /// It begins at or behind the end, or asks for the last no bytes.
    Beyond,
}

/// What a header asks for of `length` bytes.
pub(super) fn part(header: Option<&str>, length: u64) -> Part {
    match header.and_then(spec) {
        None => Part::Whole,
        Some(Spec::From(from, last)) if from < length => {
            let to = last.map_or(length, |last| last.saturating_add(1).min(length));
            Part::Bytes(from, to)
        }
        Some(Spec::Last(count)) if count > 0 && length > 0 => {
            Part::Bytes(length.saturating_sub(count), length)
        }
        Some(_) => Part::Beyond,
    }
}

/// Where a range begins, for who reads on and on: 0 without one that is understood.
pub(super) fn begin(header: Option<&str>, length: u64) -> u64 {
    match header.and_then(spec) {
        Some(Spec::From(from, _)) => from,
        Some(Spec::Last(count)) => length.saturating_sub(count),
        None => 0,
    }
}

enum Spec {
    From(u64, Option<u64>),
    Last(u64),
}

fn spec(header: &str) -> Option<Spec> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    if first.is_empty() {
        return number(last).map(Spec::Last);
    }
    let first = number(first)?;
    let last = match last {
        "" => None,
        last => Some(number(last)?),
    };
    // "A range whose last-pos is less than its first-pos is invalid": ignored.
    (last.is_none_or(|last| first <= last)).then_some(Spec::From(first, last))
}

/// A number of any length: what has more digits than fit is behind every end.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, meant) in [
            ("bytes=0-", Part::Bytes(0, 10)),
            ("bytes=9-", Part::Bytes(9, 10)),
            ("bytes=2-4", Part::Bytes(2, 5)),
            ("bytes=2-400", Part::Bytes(2, 10)),
            ("bytes=-3", Part::Bytes(7, 10)),
            ("bytes=-30", Part::Bytes(0, 10)),
            ("BYTES=1-1", Part::Bytes(1, 2)),
            ("bytes=10-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=99999999999999999999999-", Part::Beyond),
            ("bytes=0-99999999999999999999999", Part::Bytes(0, 10)),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=+1-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(Some(header), 10), meant, "{header}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Beyond);
        assert_eq!(part(Some("bytes=-5"), 0), Part::Beyond);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(
            header in "(bytes=)?[0-9]{0,4}-[0-9]{0,4}", length in 0u64..2000
        ) {
            if let Part::Bytes(from, to) = part(Some(&header), length) {
                prop_assert!(from < to && to <= length);
            }
        }
    }
}
