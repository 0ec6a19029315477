//! What holds for every text and every manifest.

use kiln_core::manifest::{Manifest, parse};
use proptest::prelude::*;

const SEEDS: [&str; 5] = [
    include_str!("manifests/environment.yml"),
    include_str!("manifests/flow.yml"),
    include_str!("manifests/repositories.yml"),
    include_str!("manifests/patches.yml"),
    include_str!("manifests/tabs.yml"),
];

/// Texts that mean something else to YAML or a shell, more often than chance would give.
fn hostile_text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "",
        "yes",
        "null",
        "~",
        "012",
        "1e3",
        "- a",
        "a: b",
        "a #b",
        "'",
        "\"",
        "\\",
        "%x",
        "@x",
        "*a",
        "&a",
        "!x",
        "? x",
        "|",
        ">",
        "[",
        "{",
        "---",
        "...",
        "<<",
        " a ",
        "\ta",
        "a\n\nb\n",
        "a\r\nb",
        "\u{85}",
        "\u{2028}",
        "\u{feff}x",
        "\u{7f}",
        "\u{1b}[0m",
        "a:",
        ":",
        "#",
        "=",
    ]);
    let parts = prop_oneof![
        special.prop_map(str::to_owned),
        any::<String>(),
        "[ -~\n\t]{0,20}"
    ];
    prop::collection::vec(parts, 0..4).prop_map(|parts| parts.concat())
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

/// A manifest in JSON, which is YAML, with hostile texts wherever any text may be.
fn manifest_text() -> impl Strategy<Value = String> {
    let scripts = prop::collection::vec(hostile_text(), 1..4);
    let values = prop::collection::vec(hostile_text(), 0..4);
    let array = prop::collection::vec(hostile_text(), 0..3);
    (scripts, values, array, hostile_text()).prop_map(|(scripts, values, array, one)| {
        let tasks = scripts.iter().enumerate();
        let tasks: Vec<String> = tasks
            .map(|(n, s)| format!("{{\"t{n}\": {}}}", json_string(s)))
            .collect();
        let env = values.iter().enumerate();
        let mut env: Vec<String> = env
            .map(|(n, v)| format!("\"V{n}\": {}", json_string(v)))
            .collect();
        let array: Vec<String> = array.iter().map(|a| json_string(a)).collect();
        env.push(format!("\"L\": [{}]", array.join(", ")));
        let one = json_string(&one);
        format!(
            "{{\"image\": \"x/y\", \"packages\": [{one}], \"repositories\": {{{one}: {one}}}, \
             \"artifacts\": [{one}], \"oauth\": {one}, \"sources\": [{one}], \"secrets\": [{one}], \
             \"triggers\": [{{\"action\": \"email\", \"condition\": \"always\", \"to\": {one}}}], \
             \"environment\": {{{}}}, \"tasks\": [{}]}}",
            env.join(", "),
            tasks.join(", ")
        )
    })
}

fn check_stable(manifest: &Manifest) -> Result<(), TestCaseError> {
    let printed = manifest.to_yaml();
    let again = parse(printed.as_bytes());
    let again = again.map_err(|e| TestCaseError::fail(format!("{e}\n{printed}")))?;
    prop_assert_eq!(&again.manifest, manifest, "{}", printed);
    prop_assert_eq!(again.manifest.to_json(), manifest.to_json());
    prop_assert_eq!(again.manifest.to_yaml(), printed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Err(refused) = parse(&bytes) {
            prop_assert!(!refused.diagnostics.is_empty());
        }
    }

    #[test]
    fn a_mutated_manifest_never_panics_and_is_stable_if_taken(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, hostile_text()), 1..6),
    ) {
        let mut chars: Vec<char> = SEEDS[seed].chars().collect();
        for (index, remove, insert) in edits {
            let at = index.index(chars.len() + 1);
            let end = (at + remove).min(chars.len());
            chars.splice(at..end, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        if let Ok(parsed) = parse(text.as_bytes()) {
            check_stable(&parsed.manifest)?;
        }
    }

    #[test]
    fn a_manifest_of_hostile_texts_is_stable(text in manifest_text()) {
        if let Ok(parsed) = parse(text.as_bytes()) {
            check_stable(&parsed.manifest)?;
        }
    }

    #[test]
    fn a_text_variable_has_the_value_that_was_given(value in hostile_text()) {
        prop_assume!(!value.contains('\0'));
        let text = format!(
            "{{\"image\": \"x\", \"shell\": true, \"environment\": {{\"A\": {}}}}}",
            json_string(&value)
        );
        // JSON leaves a few characters bare that YAML forbids in its text.
        prop_assume!(!value.chars().any(|c| c.is_control() && c > '\u{1f}' || c > '\u{fffd}' && c < '\u{10000}'));
        let parsed = parse(text.as_bytes());
        let parsed = parsed.map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let json = parsed.manifest.to_json();
        prop_assert_eq!(json["environment"]["A"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn line_ends_make_no_difference(seed in 0..SEEDS.len()) {
        let unix = parse(SEEDS[seed].as_bytes());
        let dos = parse(SEEDS[seed].replace('\n', "\r\n").as_bytes());
        prop_assert_eq!(unix, dos);
    }
}
