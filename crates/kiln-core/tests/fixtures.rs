//! The manifests in `tests/manifests`: each is read, has the normalised form that stands
//! beside it, and comes back unchanged from being printed.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_core::manifest::{Manifest, parse};

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let entries = fs::read_dir(directory).expect("the fixtures are part of the crate");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yml"));
    paths.sort();
    assert!(paths.len() >= 12, "only {} fixtures", paths.len());
    paths
}

fn read(path: &Path) -> Manifest {
    let bytes = fs::read(path).expect("readable");
    match parse(&bytes) {
        Ok(parsed) => parsed.manifest,
        Err(refused) => panic!("{}:\n{refused}", path.display()),
    }
}

/// With `KILN_BLESS` set the expected forms are written anew, to be reviewed as a change.
#[test]
fn each_manifest_has_its_normalised_form() {
    for path in fixtures() {
        let json = serde_json::to_string_pretty(&read(&path).to_json()).expect("plain") + "\n";
        let beside = path.with_extension("json");
        if std::env::var_os("KILN_BLESS").is_some() {
            fs::write(&beside, &json).expect("writable");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(json, expected, "{}", path.display());
    }
}

#[test]
fn each_manifest_survives_being_printed() {
    for path in fixtures() {
        let manifest = read(&path);
        let printed = manifest.to_yaml();
        let again = parse(printed.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again.manifest, manifest, "{}:\n{printed}", path.display());
        assert_eq!(again.manifest.to_yaml(), printed);
        let traps = again
            .warnings
            .iter()
            .any(|w| w.field.starts_with("environment"));
        assert!(!traps, "a printed value is ambiguous: {:?}", again.warnings);
    }
}
