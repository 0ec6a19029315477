//! One line of the doctor's.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Broken,
}

/// What was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    level: Level,
    what: String,
    remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(what: impl Into<String>) -> Self {
        Self::new(Level::Ok, what.into(), String::new())
    }

    /// `kiln run` works, less well. The remedy may be empty: some hosts are
    /// what they are.
    pub fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Level::Warning, what.into(), remedy.into())
    }

    /// `kiln run` fails on this.
    pub fn broken(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Level::Broken, what.into(), remedy.into())
    }

    /// Whether `kiln run` fails on this.
    pub fn is_broken(&self) -> bool {
        self.level == Level::Broken
    }

    fn new(level: Level, what: String, remedy: String) -> Self {
        Self {
            level,
            what,
            remedy,
        }
    }
}

/// One line, whatever the host's programs said.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Ok => "OK",
            Level::Warning => "--",
            Level::Broken => "!!",
        };
        write!(f, "{mark}  {}", plain(&self.what))?;
        if self.remedy.is_empty() {
            return Ok(());
        }
        write!(f, " — {}", plain(&self.remedy))
    }
}

fn plain(text: &str) -> String {
    let words = text.split(|character: char| character.is_control() || character == ' ');
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_bad_what_and_what_to_do() {
        assert_eq!(
            Finding::ok("memory: 4 GiB").to_string(),
            "OK  memory: 4 GiB"
        );
        assert_eq!(Finding::warning("slow", "").to_string(), "--  slow");
        assert_eq!(
            Finding::broken("no nft", "install it").to_string(),
            "!!  no nft — install it"
        );
    }

    #[test]
    fn what_programs_say_stays_on_its_line() {
        let said = Finding::broken("nft: \x1b[31mno\n  such\tfile", "");
        assert_eq!(said.to_string(), "!!  nft: [31mno such file");
    }
}
