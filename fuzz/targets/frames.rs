//! Any bytes as a packed log, with the digest that its index should have; and a log that is
//! packed and read. What is read is an error, or just what the index says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

// Of the crate only this: its object store would bring TLS and HTTP, all to be built with
// counters.
#[path = "../../crates/kiln-objects/src/frames/mod.rs"]
#[expect(unused, reason = "a fuzzer uses what reads")]
mod frames;

use frames::{FOOTER, Index, Writer};

fuzz_target!(|data: &[u8]| {
    read(data);
    read(&mended(data));
    packed(data);
});

/// Reads all that there is.
fn read(file: &[u8]) -> Option<Vec<u8>> {
    let index = Index::read(file, file.len() as u64).ok()?;
    let mut text = Vec::new();
    for frame in 0..index.frames().len() {
        let (from, to) = index.place(frame);
        text.extend(index.open(frame, &file[from as usize..to as usize]).ok()?);
        assert!(text.len() as u64 <= index.text());
    }
    assert_eq!(text.len() as u64, index.text());
    assert!(index.seek_line(index.lines()).0 <= index.text());
    Some(text)
}

/// The same with the number of its skippable frame, its length and its digest made right.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    let Some(footer) = file.len().checked_sub(FOOTER) else {
        return file;
    };
    file[footer + 32..].copy_from_slice(b"KILNLOG1");
    // Of counts, only those that are small enough to be there.
    file[footer + 1..footer + 8].fill(0);
    let body = usize::from(file[footer]) * 32;
    let Some(header) = footer.checked_sub(body + 8) else {
        return file;
    };
    file[header..header + 4].copy_from_slice(&0x184d_2a5b_u32.to_le_bytes());
    let length = (body + FOOTER) as u32;
    file[header + 4..header + 8].copy_from_slice(&length.to_le_bytes());
    let digest = Sha256::digest(&file[header + 8..footer + 24]);
    file[footer + 24..footer + 32].copy_from_slice(&digest[..8]);
    file
}

/// Packs a text in pieces, and reads it.
fn packed(text: &[u8]) {
    let mut writer = Writer::new(Vec::new()).expect("there is memory");
    for (time, piece) in (0..).zip(text.chunks(1000)) {
        writer.push(piece, time).expect("memory takes all");
    }
    let (file, _) = writer.finish().expect("memory takes all");
    assert_eq!(read(&file).as_deref(), Some(text));
}
