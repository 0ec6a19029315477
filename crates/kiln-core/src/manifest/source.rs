//! A source: `[directory::]url[#ref]`, where the url's scheme may name the version control
//! system, as in `hg+https://…`.
//!
//! What comes out of here becomes an argument of `git` or `hg` and a directory in the guest.
//! So nothing may begin with `-` (it would be read as an option), and the directory stays
//! below the home directory.

use std::fmt;

use super::diagnostic::{Problem, quoted, refuse_control};

/// The version control system a source is cloned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scm {
    /// git, the default.
    Git,
    /// Mercurial.
    Hg,
}

impl Scm {
    /// The name used in a source's scheme, and of the command: `git` or `hg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scm::Git => "git",
            Scm::Hg => "hg",
        }
    }
}

impl fmt::Display for Scm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `sources`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    written: String,
    scm: Scm,
    directory: String,
    clone_url: String,
    reference: Option<String>,
}

impl Source {
    /// Takes a source apart.
    ///
    /// # Errors
    /// When a part of it is empty, begins with `-` or has control characters; when the scheme
    /// names a system other than git and hg; when the directory is absolute or leaves the home
    /// directory, or the url has no last segment to name it by.
    pub fn parse(written: &str) -> Result<Self, Problem> {
        refuse_control(written, "source")?;
        let (given, rest) = split_directory(written);
        let (url, reference) = match rest.split_once('#') {
            Some((url, reference)) => (url, Some(reference).filter(|r| !r.is_empty())),
            None => (rest, None),
        };
        if url.is_empty() {
            let example = "write it as `https://example.org/project`";
            return Err(Problem::new("this source has no url", example));
        }
        if let Some(reference) = reference {
            refuse_option(reference, "reference")?;
        }
        let (scm, clone_url) = split_scm(url)?;
        refuse_option(clone_url, "url")?;
        refuse_option(host_part(clone_url), "host")?;
        let directory = match given {
            Some(directory) => directory,
            None => implied_directory(clone_url),
        };
        check_directory(directory, given.is_some())?;
        Ok(Self {
            written: written.to_owned(),
            scm,
            directory: directory.to_owned(),
            clone_url: clone_url.to_owned(),
            reference: reference.map(str::to_owned),
        })
    }

    /// The source as its author wrote it.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The system to clone it with.
    pub fn scm(&self) -> Scm {
        self.scm
    }

    /// Where it is cloned to, relative to the home directory: what stands before `::`, else
    /// the url's last segment without `.git`. Never empty, absolute or with `..`; never begins
    /// with `-`.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The address to clone from, its scheme without `git+` or `hg+`. Never begins with `-`.
    pub fn clone_url(&self) -> &str {
        &self.clone_url
    }

    /// The commit, branch or tag to check out; the remote's default when `None`. Never begins
    /// with `-`.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// The same source at another commit, branch or tag.
    ///
    /// # Errors
    /// As [`Self::parse`]: a reference that begins with `-` or has control characters.
    pub fn at(&self, reference: &str) -> Result<Self, Problem> {
        let (directory, url) = split_directory(&self.written);
        let url = url.split('#').next().unwrap_or(url);
        Self::parse(&match directory {
            Some(directory) => format!("{directory}::{url}#{reference}"),
            None => format!("{url}#{reference}"),
        })
    }

    /// Whether the guest would look for it on its own disk: there is neither a scheme nor the
    /// `host:` of an scp-like address.
    pub fn is_local_path(&self) -> bool {
        !self.clone_url.contains(':')
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Splits `directory::` off. A `::` inside a url (`ssh://[::1]/x`) doesn't count.
fn split_directory(text: &str) -> (Option<&str>, &str) {
    match text.split_once("::") {
        Some((directory, rest)) if !directory.contains("://") && !directory.contains('[') => {
            (Some(directory), rest)
        }
        _ => (None, text),
    }
}

/// The system that the scheme names, and the url without that name.
fn split_scm(url: &str) -> Result<(Scm, &str), Problem> {
    let Some((scheme, _)) = url.split_once("://") else {
        return Ok((Scm::Git, url));
    };
    let Some((scm, transport)) = scheme.split_once('+') else {
        return check_scheme(scheme).map(|()| (Scm::Git, url));
    };
    check_scheme(transport)?;
    let rest = &url[scm.len() + 1..];
    match scm {
        "git" => Ok((Scm::Git, rest)),
        "hg" => Ok((Scm::Hg, rest)),
        _ => Err(Problem::new(
            format!("kiln cannot clone with {}", quoted(scm)),
            "use `git+…` or `hg+…`, or clone it in a task",
        )),
    }
}

fn check_scheme(scheme: &str) -> Result<(), Problem> {
    let mut chars = scheme.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    if first && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
        return Ok(());
    }
    Err(Problem::new(
        format!("{} is not the scheme of a url", quoted(scheme)),
        "write it as `https://example.org/project`",
    ))
}

/// What git and ssh take as the host: also there a leading `-` was once an option.
fn host_part(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

fn implied_directory(url: &str) -> &str {
    let path = match url.split_once("://") {
        // Without a path there is no last segment: the host is none.
        Some((_, rest)) => rest
            .split('?')
            .next()
            .and_then(|r| r.split_once('/'))
            .map(|x| x.1),
        None => Some(url),
    };
    let path = path.unwrap_or_default().trim_end_matches('/');
    let segment = path.rsplit(['/', ':']).next().unwrap_or_default();
    segment.strip_suffix(".git").unwrap_or(segment)
}

fn refuse_option(text: &str, what: &str) -> Result<(), Problem> {
    if text.starts_with('-') {
        return Err(Problem::new(
            format!("the {what} {} begins with `-`", quoted(text)),
            format!("use a {what} that does not look like an option of a command"),
        ));
    }
    Ok(())
}

fn check_directory(directory: &str, given: bool) -> Result<(), Problem> {
    let message = match directory {
        "" if !given => "no directory can be made from this url".to_owned(),
        "" => "the directory before `::` is empty".to_owned(),
        d if d.starts_with('-') => format!("the directory {} begins with `-`", quoted(d)),
        d if d.starts_with('/') => format!("the directory {} is absolute", quoted(d)),
        d if d.split('/').any(|part| matches!(part, "" | "." | "..")) => {
            format!(
                "the directory {} has an empty, `.` or `..` segment",
                quoted(d)
            )
        }
        _ => return Ok(()),
    };
    let remedy = "name one below the home directory, as in `name::https://example.org/project`";
    Err(Problem::new(message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// directory, scm, url, reference
    fn parts(text: &str) -> (String, Scm, String, Option<String>) {
        let s = Source::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(s.as_str(), text);
        (s.directory, s.scm, s.clone_url, s.reference)
    }

    fn expect(text: &str, directory: &str, scm: Scm, url: &str, reference: Option<&str>) {
        let want = (
            directory.into(),
            scm,
            url.into(),
            reference.map(str::to_owned),
        );
        assert_eq!(parts(text), want, "{text}");
    }

    #[test]
    fn every_form_of_a_source_is_taken_apart() {
        use Scm::{Git, Hg};
        let https = "https://git.sr.ht/~user/project";
        expect(https, "project", Git, https, None);
        expect(
            &format!("{https}#main"),
            "project",
            Git,
            https,
            Some("main"),
        );
        expect(
            &format!("{https}.git/"),
            "project",
            Git,
            &format!("{https}.git/"),
            None,
        );
        expect(
            &format!("src/x::{https}#v1"),
            "src/x",
            Git,
            https,
            Some("v1"),
        );
        expect(&format!("git+{https}"), "project", Git, https, None);
        expect(
            "hg+https://hg.sr.ht/~u/p",
            "p",
            Hg,
            "https://hg.sr.ht/~u/p",
            None,
        );
        expect(
            "hg+ssh://hg@hg.sr.ht/~u/p#tip",
            "p",
            Hg,
            "ssh://hg@hg.sr.ht/~u/p",
            Some("tip"),
        );
        expect(
            "git@git.sr.ht:~u/p.git",
            "p",
            Git,
            "git@git.sr.ht:~u/p.git",
            None,
        );
        expect("git@host:p", "p", Git, "git@host:p", None);
        expect("d::git@host:p#x", "d", Git, "git@host:p", Some("x"));
        expect("ssh://git@[::1]/p", "p", Git, "ssh://git@[::1]/p", None);
        expect(
            "https://h/p.git?x=/y",
            "p",
            Git,
            "https://h/p.git?x=/y",
            None,
        );
        expect("https://h/p#", "p", Git, "https://h/p", None);
    }

    #[test]
    fn nothing_can_be_read_as_an_option() {
        for text in [
            "--upload-pack=x",
            "x::--upload-pack=x",
            "https://h/p#--orphan",
            "-d::https://h/p",
            "https://h/-p",
            "ssh://-oProxyCommand=x/p",
            "ssh://git@-oProxyCommand=x/p",
            "git+--x://h/p",
            "-oProxyCommand=x:p",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_stays_below_the_home_directory() {
        for directory in ["", "/x", "..", ".", "a/../../b", "a//b", "./a", "a/"] {
            let text = format!("{directory}::https://h/p");
            assert!(Source::parse(&text).is_err(), "{text}");
        }
        for text in [
            "https://h/..",
            "https://h/.git",
            "https://h",
            "https://h/",
            "",
            "#x",
            "a\nb",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_system_is_named() {
        let problem = Source::parse("svn+https://h/p").expect_err("svn");
        assert_eq!(problem.message, "kiln cannot clone with `svn`");
    }

    #[test]
    fn an_address_without_a_host_is_a_path() {
        assert!(
            Source::parse("example.org/x")
                .expect("fine")
                .is_local_path()
        );
        assert!(!Source::parse("git@h:x").expect("fine").is_local_path());
    }
}
