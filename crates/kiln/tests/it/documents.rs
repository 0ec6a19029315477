//! Generated files that are committed.

use std::{collections::BTreeMap, path::Path, process::Command};

fn pages(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).expect("a page"))
        })
        .collect()
}

#[test]
fn the_man_pages_are_those_of_this_command_line() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man");
    let fresh = tempfile::tempdir().expect("a directory");
    let status = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .arg("man")
        .arg(fresh.path())
        .status()
        .expect("kiln");
    assert!(status.success());
    let (committed, fresh) = (pages(&committed), pages(fresh.path()));
    let names: Vec<&String> = fresh.keys().collect();
    assert_eq!(committed.keys().collect::<Vec<_>>(), names);
    for name in names {
        assert_eq!(committed[name], fresh[name], "{name}: run `make man`");
    }
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["completions", shell])
            .output()
            .expect("kiln");
        assert!(output.status.success());
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(script.contains("no-network"), "{shell}");
    }
}
