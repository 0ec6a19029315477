//! Names of processor architectures, which the distributions spell differently.
//!
//! A manifest's `arch` is kept as its author wrote it. Whoever compares two names, or looks
//! for an image's directory, asks this module whether they mean the same machine.

/// Each row is one machine: kiln's name for it first, then the other spellings in use.
const SPELLINGS: &[&[&str]] = &[&["x86_64", "amd64"], &["aarch64", "arm64"]];

/// kiln's name for the architecture: `amd64` gives `x86_64`, `arm64` gives `aarch64`.
///
/// A name this table doesn't know is its own canonical name; letter case counts, because it
/// does in the directories of images.
pub fn canonical(name: &str) -> &str {
    SPELLINGS
        .iter()
        .find(|row| row.contains(&name))
        .map_or(name, |row| row[0])
}

/// Whether two names mean the same machine.
pub fn same(a: &str, b: &str) -> bool {
    canonical(a) == canonical(b)
}

/// Every spelling of the architecture, kiln's own first: the directory names to try in turn.
pub fn spellings(name: &str) -> Vec<&str> {
    SPELLINGS
        .iter()
        .find(|row| row.contains(&name))
        .map_or_else(|| vec![name], |row| row.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_linux_spellings_mean_the_same_machine() {
        assert!(same("amd64", "x86_64"));
        assert!(same("arm64", "aarch64"));
        assert!(!same("amd64", "arm64"));
    }

    #[test]
    fn an_unknown_architecture_is_only_itself() {
        assert_eq!(canonical("ppc64le"), "ppc64le");
        assert_eq!(spellings("ppc64le"), ["ppc64le"]);
        assert!(!same("ppc64le", "ppc64"));
    }
}
