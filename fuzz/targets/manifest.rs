//! Any bytes: reading them never panics, and what is read survives being printed.
#![no_main]

use kiln_core::guest_files::{buildenv, task_script};
use kiln_core::manifest::{MAX_BYTES, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let parsed = match parse(data) {
        Ok(parsed) => parsed,
        Err(refused) => {
            assert!(!refused.diagnostics.is_empty());
            let _ = refused.to_string();
            return;
        }
    };
    let manifest = parsed.manifest;
    let printed = manifest.to_yaml();
    if printed.len() > MAX_BYTES {
        return;
    }
    match parse(printed.as_bytes()) {
        Ok(again) => assert_eq!(again.manifest, manifest, "printed as:\n{printed}"),
        Err(refused) => panic!("{refused}\nprinted as:\n{printed}"),
    }
    assert_eq!(manifest.to_json().as_object().map(|o| o.len()), Some(12));
    let _ = buildenv(&manifest, &[]);
    for task in manifest.tasks() {
        let _ = task_script(task, None);
    }
});
