//! Times and sizes as people write them, on command lines and in files.

use std::time::Duration;

/// As [`duration`], or no time at all.
pub fn duration_or_none(text: &str) -> Result<Duration, String> {
    match text.trim_end_matches(['s', 'm', 'h', 'd']) {
        "0" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

/// How long something is kept: a time of at least an hour, or `forever`.
pub fn age(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    let wrong = |_| format!("`{text}` is no time; write it like 90d or 12h, or forever");
    match seconds(text).map_err(wrong)? {
        // What is longer than the calendar is for ever.
        seconds @ 3600..=300_000_000_000 => Ok(Some(Duration::from_secs(seconds))),
        0..3600 => Err(format!(
            "`{text}` is less than an hour; write it like 90d or 12h, or forever"
        )),
        _ => Err(format!("`{text}` is for ever; write forever")),
    }
}

/// `90s`, `45m`, `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    // Longer than a year is a slip of the finger, and tokio's clock ends somewhere.
    match seconds(text)? {
        seconds @ 1..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is no time between a second and a year")),
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time; write it like 90s, 45m, 1h30m or 2d");
    let mut seconds = 0u64;
    let mut digits = String::new();
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                digits.push(character);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        let part = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
    }
    if !digits.is_empty() {
        let rest: u64 = digits.parse().map_err(|_| wrong())?;
        seconds = seconds.checked_add(rest).ok_or_else(wrong)?;
    }
    Ok(seconds)
}

/// `256M`, `1G`, `4096`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write it like 4096, 256M or 1G");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (text.get(..text.len() - 1), 10),
        Some(b'm' | b'M') => (text.get(..text.len() - 1), 20),
        Some(b'g' | b'G') => (text.get(..text.len() - 1), 30),
        _ => (Some(text), 0),
    };
    let number: u64 = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// `2048` (MiB), `2G`, of memory.
pub fn mebibytes(text: &str) -> Result<u32, String> {
    match u32::try_from(size_in_mib(text)?) {
        Ok(mib @ 64..) => Ok(mib),
        _ => Err(format!(
            "`{text}` is too little or too much memory; write it in MiB, or like 2G"
        )),
    }
}

/// The same of a disk.
pub fn disk(text: &str) -> Result<u32, String> {
    const LEAST: u64 = kiln_vm::qemu::MIN_DISK_SPACE >> 20;
    match size_in_mib(text)? {
        mib @ LEAST.. => u32::try_from(mib).map_err(|_| format!("`{text}` is no size of a disk")),
        _ => Err(format!(
            "`{text}` is too little: a guest needs {LEAST} MiB of disk at the least"
        )),
    }
}

/// A bare number is MiB.
fn size_in_mib(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(mib) => Ok(mib),
        Err(_) => Ok(bytes(text)? >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("45m"), Ok(Duration::from_secs(2700)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for wrong in [
            "",
            "m",
            "45x",
            "-1s",
            "0",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_kept_for_long_or_for_ever() {
        assert_eq!(age("forever"), Ok(None));
        assert_eq!(age("90d"), Ok(Some(Duration::from_secs(90 * 86_400))));
        assert_eq!(age("3650d"), Ok(Some(Duration::from_secs(3650 * 86_400))));
        for wrong in ["", "0", "59m", "90x", "never", "99999999d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("256M"), Ok(256 << 20));
        assert_eq!(mebibytes("2G"), Ok(2048));
        assert_eq!(mebibytes("1024"), Ok(1024));
        assert!(mebibytes("1").is_err());
        assert_eq!(disk("256"), Ok(256));
        assert!(disk("255").is_err() && disk("9999999999").is_err());
        assert!(bytes("é").is_err());
    }
}
