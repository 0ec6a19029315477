//! Scripts for the guest: fixed texts that get a manifest's words as arguments.
//!
//! Nothing a user wrote is pasted into a script, so there is nothing to escape
//! from; the only quoting is that of whole arguments for the login shell.

use kiln_core::guest_files::shell_quote;

/// The login shell's line that runs a bash script with these arguments.
pub(crate) fn bash(script: &str, arguments: &[&str]) -> String {
    let mut line = format!("exec bash -c {} kiln", shell_quote(script));
    for argument in arguments {
        line.push(' ');
        line.push_str(&shell_quote(argument));
    }
    line
}

/// A path of the manifest as the guest has it: absolute, or in the home.
pub(crate) fn in_home(home: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.strip_prefix("~/").unwrap_or(path);
    format!("{}/{path}", home.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_script_as_they_are() {
        let words = ["", "a b", "'", "$(id)", "-n", "\n", "`id`", "\\", "é*?[a]"];
        let line = bash(r#"printf '<%s>' "$@""#, &words);
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn paths_are_those_of_the_home_unless_absolute() {
        assert_eq!(in_home("/home/build", "out/a"), "/home/build/out/a");
        assert_eq!(in_home("/home/build/", "~/a"), "/home/build/a");
        assert_eq!(in_home("/home/build", "/etc/motd"), "/etc/motd");
        assert_eq!(in_home("/home/build", "-rf"), "/home/build/-rf");
    }
}
