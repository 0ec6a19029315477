//! Any text as a source: what is taken apart is fit for the arguments of `git` and `hg`.
#![no_main]

use kiln_core::manifest::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(source) = Source::parse(text) else {
        return;
    };
    assert_eq!(source.as_str(), text);
    let directory = source.directory();
    assert!(!directory.is_empty() && !directory.starts_with(['-', '/']));
    assert!(
        directory
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
    );
    assert!(!source.clone_url().is_empty() && !source.clone_url().starts_with('-'));
    assert!(
        source
            .reference()
            .is_none_or(|r| !r.is_empty() && !r.starts_with('-'))
    );
    assert!(!text.chars().any(char::is_control));
});
