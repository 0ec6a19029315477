//! The rules of the workspace: each that ARCHITECTURE.md and CONTRIBUTING.md
//! state and a program can check.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The longest source file, in lines.
const MAX_LINES: usize = 700;

/// A row of the table of crates in ARCHITECTURE.md.
struct Row {
    name: String,
    row: u32,
    owns: Vec<String>,
}

/// A direct dependency of a crate of ours.
#[derive(Debug)]
struct Edge {
    from: String,
    to: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The table: `| crate | row | what | owns |`.
fn table() -> Vec<Row> {
    let text = read("ARCHITECTURE.md");
    let rows = text.lines().filter(|line| line.starts_with("| `kiln"));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, row, _, owns] = cells.as_slice() else {
            panic!("a row has other columns: {line}");
        };
        Row {
            name: name.trim_matches('`').to_owned(),
            row: row.parse().expect("the second column is the row's number"),
            owns: quoted(owns).map(str::to_owned).collect(),
        }
    });
    rows.collect()
}

/// Direct dependencies of our crates, of every kind.
fn edges() -> Vec<Edge> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().expect("a list of packages") {
        for dependency in package["dependencies"].as_array().expect("a list") {
            edges.push(Edge {
                from: package["name"].as_str().expect("a name").to_owned(),
                to: dependency["name"].as_str().expect("a name").to_owned(),
            });
        }
    }
    edges
}

/// All files below a directory with this extension, by their path from the root.
fn files(dir: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from(dir)];
    while let Some(dir) = todo.pop() {
        let entries = std::fs::read_dir(root().join(&dir));
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries.map(|entry| entry.expect("an entry")) {
            let path = dir.join(entry.file_name());
            if entry.path().is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// A file's code: without comments, and without its tests, which come last.
fn code(file: &str) -> String {
    let text = read(file);
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of std that code names: in paths, and in `use std::{…}`.
fn modules_of_std(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for rest in code.split("std::").skip(1) {
        let mut depth = 0;
        let mut word = String::new();
        for character in rest.chars() {
            if character.is_alphanumeric() || character == '_' {
                word.push(character);
                continue;
            }
            // In the inner braces are a module's own names.
            if !word.is_empty() && depth <= 1 {
                modules.insert(word.clone());
            }
            word.clear();
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth <= 0 {
                break;
            }
        }
    }
    modules
}

#[test]
fn the_table_names_exactly_the_crates_that_there_are() {
    let told: BTreeSet<String> = table().into_iter().map(|row| row.name).collect();
    let entries = std::fs::read_dir(root().join("crates")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(told, names.collect());
}

#[test]
fn arrows_only_go_down() {
    let rows: BTreeMap<String, u32> = table().into_iter().map(|row| (row.name, row.row)).collect();
    let sideways_or_up = |edge: &Edge| match (rows.get(&edge.from), rows.get(&edge.to)) {
        (Some(from), Some(to)) => from <= to,
        _ => false,
    };
    let wrong: Vec<Edge> = edges().into_iter().filter(sideways_or_up).collect();
    assert!(wrong.is_empty(), "not down: {wrong:?}");
}

#[test]
fn what_a_crate_owns_no_other_crate_names() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table() {
        for owned in row.owns {
            owners.entry(owned).or_default().insert(row.name.clone());
        }
    }
    assert!(
        owners.len() >= 3,
        "the table's last column was not read: {owners:?}"
    );
    for edge in edges() {
        if let Some(owners) = owners.get(&edge.to) {
            assert!(
                owners.contains(&edge.from),
                "{} is not for {}",
                edge.to,
                edge.from
            );
        }
    }
    let deny = read("deny.toml");
    for (owned, owners) in owners {
        let rule = deny
            .lines()
            .find(|line| line.contains(&format!("crate = \"{owned}\",")));
        let rule = rule.unwrap_or_else(|| panic!("deny.toml has no wrappers for {owned}"));
        for owner in owners {
            assert!(
                rule.contains(&format!("\"{owner}\"")),
                "{owner} is missing in: {rule}"
            );
        }
    }
}

#[test]
fn the_core_does_no_io_and_knows_no_clock_and_no_randomness() {
    const OUTSIDE: &[&str] = &["fs", "net", "env", "process", "thread", "os", "io"];
    for file in files("crates/kiln-core/src", "rs") {
        let code = code(&file);
        let named = modules_of_std(&code);
        for module in OUTSIDE {
            assert!(!named.contains(*module), "{file} uses std::{module}");
        }
        for word in ["SystemTime", "Instant", "RandomState", "async fn"] {
            assert!(!code.contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn the_search_for_modules_finds_them_in_every_form() {
    let code =
        "use std::{fmt, collections::{HashMap, fs2}, io::Read};\nstd::net::TcpStream; use std::fs;";
    let found = modules_of_std(code);
    let found: Vec<&str> = found
        .iter()
        .map(String::as_str)
        .filter(|m| m.len() < 4)
        .collect();
    assert_eq!(found, ["fmt", "fs", "io", "net"]);
}

#[test]
fn only_the_binary_reads_the_environment() {
    for dir in [
        "crates/kiln-core/src",
        "crates/kiln-objects/src",
        "crates/kiln-server/src",
        "crates/kiln-store/src",
        "crates/kiln-vm/src",
        "crates/kiln-wire/src",
        "crates/kiln-worker/src",
    ] {
        // The dummy machine is for tests.
        let production = |file: &String| !file.starts_with("crates/kiln-vm/src/dummy");
        for file in files(dir, "rs").into_iter().filter(production) {
            let code = code(&file);
            for word in ["env::var", "env::args", "env::home_dir"] {
                assert!(!code.contains(word), "{file} uses {word}");
            }
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    for file in files("crates", "rs")
        .iter()
        .chain(&files("fuzz/targets", "rs"))
    {
        let lines = read(file).lines().count();
        assert!(
            lines <= MAX_LINES,
            "{file} has {lines} lines, more than {MAX_LINES}"
        );
    }
}

#[test]
fn exceptions_from_lints_are_expected_and_give_a_reason() {
    // In pieces, so that this file does not find itself.
    let forms = [["#[", "allow("].concat(), ["#![", "allow("].concat()];
    for file in files("crates", "rs") {
        let text = read(&file);
        let found = forms.iter().any(|form| text.contains(form));
        assert!(!found, "{file}: use #[expect(…, reason = …)]");
    }
}

#[test]
fn every_decision_is_in_the_list_and_has_its_three_parts() {
    let list = read("docs/decisions/README.md");
    let mut numbers = BTreeSet::new();
    for record in files("docs/decisions", "md") {
        let name = record.rsplit('/').next().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(
            list.contains(&format!("({name})")),
            "docs/decisions/README.md does not list {name}"
        );
        assert!(
            numbers.insert(name[..4].to_owned()),
            "two records have the number of {name}"
        );
        let text = read(&record);
        for part in ["## Context", "## Decision", "## Consequences"] {
            assert!(text.contains(part), "{record} has no {part}");
        }
    }
    let listed = list.lines().filter(|line| line.contains(".md)")).count();
    assert_eq!(
        listed,
        numbers.len(),
        "the list names a record that is not there"
    );
}

#[test]
fn documents_point_to_files_that_are_there() {
    let mut documents = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/client.md",
        "docs/deploy.md",
        "docs/farm.md",
        "docs/operator.md",
        "docs/security.md",
    ]
    .map(str::to_owned)
    .to_vec();
    documents.extend(files("docs/decisions", "md"));
    for document in documents {
        let text = read(&document);
        let dir = Path::new(&document).parent().unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap_or_default();
            let outside = path.is_empty() || path.contains("://");
            assert!(
                outside || root().join(dir).join(path).exists(),
                "{document} links to {link}"
            );
        }
        for word in quoted(&text).filter(|word| is_path(word)) {
            assert!(root().join(word).exists(), "{document} names {word}");
        }
    }
}

/// Whether a word in backticks is a path from the root of the repository.
fn is_path(word: &str) -> bool {
    const TOP: &[&str] = &[
        "crates/",
        "deploy/",
        "docs/",
        "images/debian",
        "scripts/",
        "examples/",
        "fuzz/",
        ".ci/",
        ".cargo/",
        "deny.toml",
        "clippy.toml",
        "rust-toolchain.toml",
        "Makefile",
        "Cargo.toml",
    ];
    TOP.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '*', '<', '{', '$'])
}

#[test]
fn every_make_target_that_a_document_names_is_there() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for document in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = read(document);
        for (at, _) in text.match_indices("make ") {
            // A command is in backticks, or begins a line of a block.
            let before = text[..at].trim_end_matches(' ');
            if !before.ends_with(['`', '\n']) {
                continue;
            }
            let name = text[at..]
                .split([' ', '`', '\n'])
                .nth(1)
                .unwrap_or_default();
            assert!(
                makefile.contains(&format!("\n{name}:")),
                "{document} names `make {name}`"
            );
            seen += 1;
        }
    }
    assert!(seen > 3, "the documents were not read");
}

/// Whether a function of this name is in a module of this name.
fn is_test(module: &str, name: &str, sources: &[(String, String)]) -> bool {
    let is_module = |file: &str| {
        let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
        file.rsplit('/').next() == Some(module)
    };
    sources
        .iter()
        .any(|(file, text)| is_module(file) && text.contains(&format!("fn {name}(")))
}

#[test]
fn every_claim_of_the_threat_model_names_tests_that_are_there() {
    let sources: Vec<(String, String)> = files("crates", "rs")
        .into_iter()
        .map(|file| (file.clone(), read(&file)))
        .collect();
    let page = read("docs/security.md");
    let claims = page.split("\n## What is contained\n").nth(1).unwrap();
    let claims = claims.split("\n## ").next().unwrap();
    let rows = claims.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut seen = 0;
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let named: Vec<&str> = quoted(tests).collect();
        assert!(!named.is_empty(), "a claim without a test: {row}");
        for test in named {
            let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test}"));
            assert!(is_test(module, name, &sources), "there is no test {test}");
            seen += 1;
        }
    }
    assert!(seen > 20, "the table was not read");
}

/// What `make chaos-broken` breaks on purpose.
#[test]
fn what_breaks_the_farm_on_purpose_still_fits() {
    let broken = root().join("crates/kiln/tests/chaos/broken");
    let patches = files("crates/kiln/tests/chaos/broken", "patch");
    assert!(!patches.is_empty(), "{} has no patches", broken.display());
    for patch in patches {
        let applies = Command::new("git")
            .args(["apply", "--check", &patch])
            .current_dir(root())
            .output()
            .expect("git");
        let said = String::from_utf8_lossy(&applies.stderr);
        assert!(applies.status.success(), "{patch}: {said}");
    }
}
