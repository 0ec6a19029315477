use std::io::Write;

use kiln_objects::frames::{FRAME, FrameError, Index, Writer};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Packs pieces, each with its time.
fn pack(pieces: &[(&[u8], i64)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for (piece, time) in pieces {
        writer.push(piece, *time).unwrap();
    }
    let (file, summary) = writer.finish().unwrap();
    let length: usize = pieces.iter().map(|(piece, _)| piece.len()).sum();
    assert_eq!(
        (summary.text, summary.file),
        (length as u64, file.len() as u64)
    );
    file
}

fn index(file: &[u8]) -> Result<Index, FrameError> {
    Index::read(file, file.len() as u64)
}

fn open(index: &Index, file: &[u8], frame: usize) -> Result<Vec<u8>, FrameError> {
    let (from, to) = index.place(frame);
    index.open(frame, &file[from as usize..to as usize])
}

fn unpack(file: &[u8]) -> Result<Vec<u8>, FrameError> {
    let index = index(file)?;
    let mut text = Vec::new();
    for frame in 0..index.frames().len() {
        text.extend(open(&index, file, frame)?);
    }
    Ok(text)
}

/// Lines of all lengths, compressible like a log, of so many bytes.
fn text(length: usize, longest: usize, seed: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(length);
    let mut state = seed;
    while text.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let rest = (state >> 33) as usize % longest;
        text.extend(
            format!("{state:x} ")
                .bytes()
                .chain(b"checking ".repeat(rest / 9)),
        );
        text.push(b'\n');
    }
    text.truncate(length);
    text
}

#[test]
fn zstd_reads_a_packed_log() {
    let text = text(3 * FRAME + 17, 500, 1);
    let file = pack(&[(&text, 1)]);
    let mut child = std::process::Command::new("zstd")
        .args(["-d", "-c", "-q"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&file).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == text);
}

#[test]
fn frames_end_with_lines_and_a_long_line_is_cut() {
    let mut log = text(FRAME + 100, 300, 2);
    let file = pack(&[(&log, 1)]);
    let found = index(&file).unwrap();
    let [first, second] = found.frames() else {
        panic!("{:?}", found.frames())
    };
    assert_eq!((first.text, first.line), (0, 1));
    assert_eq!(log[second.text as usize - 1], b'\n');
    log = vec![b'x'; 2 * FRAME + 1];
    let file = pack(&[(&log, 1)]);
    let found = index(&file).unwrap();
    let lengths: Vec<_> = found
        .frames()
        .iter()
        .map(|frame| (frame.text, frame.line))
        .collect();
    assert_eq!(lengths, [(0, 1), (FRAME as u64, 1), (2 * FRAME as u64, 1)]);
    assert_eq!(unpack(&file).unwrap(), log);
}

#[test]
fn a_frames_time_is_of_the_piece_that_its_first_byte_is_of() {
    let half = text(FRAME / 2, 100, 3);
    let file = pack(&[
        (&half, 10),
        (&half, 20),
        (b"\n", 30),
        (&half, 40),
        (&half, 50),
        (b"x\n", 60),
    ]);
    let index = index(&file).unwrap();
    let times: Vec<_> = index
        .frames()
        .iter()
        .map(|frame| (frame.text, frame.time))
        .collect();
    let bounds = [
        (0, 10),
        (FRAME as u64 / 2, 20),
        (FRAME as u64, 30),
        (FRAME as u64 + 1, 40),
    ];
    for (at, time) in times {
        let of = bounds.iter().rev().find(|(from, _)| *from <= at).unwrap().1;
        // The last pieces begin behind these.
        assert!(time == of || at > 3 * FRAME as u64 / 2, "{at}: {time}");
    }
}

#[test]
fn what_is_empty_has_an_index_of_nothing() {
    let file = pack(&[]);
    let index = index(&file).unwrap();
    assert_eq!(
        (index.text(), index.lines(), index.frame_of(0)),
        (0, 0, None)
    );
    assert_eq!(index.seek_line(7), (0, 1));
    assert_eq!(unpack(&file).unwrap(), b"");
}

#[test]
fn an_index_that_would_be_too_long_is_refused_before_it_is_read() {
    let mut file = pack(&[(b"x", 1)]);
    let frames = file.len() - 40;
    for count in [u64::MAX, 1 << 60, 1 << 20, 2, 0] {
        file[frames..frames + 8].copy_from_slice(&count.to_le_bytes());
        assert!(
            matches!(index(&file), Err(FrameError::Damaged(_))),
            "{count}"
        );
    }
}

#[test]
fn a_frame_that_unpacks_to_more_than_it_says_takes_no_more_memory() {
    // A frame of 64 MiB of zeros in the place of one byte.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let small = pack(&[(b"x", 1)]);
    let small = index(&small).unwrap();
    assert!(matches!(small.open(0, &bomb), Err(FrameError::Frame(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_packed_log_is_the_log_in_any_range_and_from_any_line(
        length in 1usize..(2 * FRAME + FRAME / 2), longest in 10usize..9000, seed: u64,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        from: prop::sample::Index, line: prop::sample::Index,
    ) {
        let log = text(length, longest, seed);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(length)).collect();
        cuts.extend([0, length]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| (&log[cut[0]..cut[1]], cut[0] as i64)).collect();
        let file = pack(&pieces);
        let index = index(&file).unwrap();
        prop_assert_eq!(index.text(), length as u64);
        prop_assert_eq!(unpack(&file).unwrap() == log, true);
        // One byte, of one frame.
        let from = from.index(length);
        let frame = index.frame_of(from as u64).unwrap();
        let begin = index.frames()[frame].text as usize;
        prop_assert_eq!(open(&index, &file, frame).unwrap()[from - begin], log[from]);
        prop_assert_eq!(index.frame_of(length as u64), None);
        // Any line, and one behind the end.
        let lines: Vec<usize> = std::iter::once(0)
            .chain(log.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        prop_assert_eq!(index.lines(), lines.len() as u64 - 1);
        let wanted = line.index(lines.len() + 1);
        let (at, number) = index.seek_line(wanted as u64 + 1);
        prop_assert!(number as usize <= wanted + 1);
        prop_assert!(lines.get(wanted).is_none_or(|begin| at as usize <= *begin));
        let ends = log[..at as usize].iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(ends as u64 + 1, number);
        // No frame more than needed.
        if let Some(begin) = lines.get(wanted) {
            prop_assert!(index.frame_of(at).unwrap() + 1 >= index.frame_of((*begin).min(length - 1) as u64).unwrap());
        }
    }

    #[test]
    fn a_damaged_packed_log_is_an_error_and_never_another_text(
        length in 1usize..(FRAME + FRAME / 4), seed: u64, at: prop::sample::Index, to: u8, short: bool,
    ) {
        let log = text(length, 400, seed);
        let mut file = pack(&[(&log, 5)]);
        let at = at.index(file.len());
        if short {
            file.truncate(at);
        } else {
            file[at] = to;
        }
        if let Ok(read) = unpack(&file) {
            prop_assert!(read == log);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300), frames in 0u64..4, magic: bool,
    ) {
        if magic && bytes.len() >= 40 {
            let footer = bytes.len() - 40;
            bytes[footer..footer + 8].copy_from_slice(&frames.to_le_bytes());
            bytes[footer + 32..].copy_from_slice(b"KILNLOG1");
        }
        prop_assert!(unpack(&bytes).is_err());
    }
}

/// An index with the digest that it should have, behind some bytes.
fn forged(bytes: &[u8], entries: &[[u64; 4]], ends: [u64; 2]) -> Vec<u8> {
    let numbers = |numbers: &[u64]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    };
    let body = numbers(entries.as_flattened());
    let footer = numbers(&[entries.len() as u64, ends[0], ends[1]]);
    let digest = Sha256::digest([body.as_slice(), &footer].concat());
    let length = u32::try_from(body.len() + 40).unwrap();
    let header = [0x184d_2a5b_u32.to_le_bytes(), length.to_le_bytes()].concat();
    [bytes, &header, &body, &footer, &digest[..8], b"KILNLOG1"].concat()
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..40,
        0u64..40,
        (FRAME as u64 - 2)..(FRAME as u64 * 2),
        any::<u64>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn an_index_that_lies_makes_it_neither_panic_nor_take_memory(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        entries in prop::collection::vec([small(), small(), small(), small()], 0..4),
        ends in [small(), small()], begins: bool, byte in small(),
    ) {
        let mut entries = entries;
        if let Some(first) = entries.first_mut().filter(|_| begins) {
            *first = [0, 0, 1, 0];
        }
        entries.sort_unstable();
        let file = forged(&bytes, &entries, ends);
        let Ok(index) = index(&file) else { return Ok(()) };
        for (frame, _) in index.frames().iter().enumerate() {
            // Random bytes are no frame.
            prop_assert!(open(&index, &file, frame).is_err());
        }
        let (at, _) = index.seek_line(byte);
        prop_assert!(at == 0 || at < index.text());
        prop_assert_eq!(index.frame_of(byte).is_some(), byte < index.text());
    }
}
