//! Any bytes of guests, of QEMU and of images. The first one says who reads the rest: `a` is the
//! first of the readers.
#![no_main]

use kiln_vm::fuzzing::READERS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((&place, bytes)) = data.split_first() {
        let place = usize::from(place.wrapping_sub(b'a'));
        READERS[place % READERS.len()](bytes);
    }
});
