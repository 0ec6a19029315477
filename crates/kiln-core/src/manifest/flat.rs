//! Small files of plain keys and values, read with the manifest's own eyes.

use super::{
    Refused,
    diagnostic::{Position, Problem, Report},
    read, text,
    yaml::{self, Value},
};

/// The keys and texts of a mapping, in order; what is null is left out.
pub(crate) fn flat_mapping(bytes: &[u8]) -> Result<Vec<(String, String)>, Refused> {
    let mut report = Report::default();
    let entries = read_entries(bytes, &mut report);
    if report.failed() {
        return Err(Refused {
            diagnostics: report.into_diagnostics(),
        });
    }
    Ok(entries)
}

fn read_entries(bytes: &[u8], report: &mut Report) -> Vec<(String, String)> {
    let root = match text::prepare(bytes).and_then(|text| yaml::read(&text)) {
        Ok(root) => root,
        Err((at, problem)) => {
            report.error(at, "", problem);
            return Vec::new();
        }
    };
    let Some(root) = root.filter(|node| !node.is_null()) else {
        return Vec::new();
    };
    let mut texts = Vec::new();
    for entry in read::mapping(&root, "", report, "homedir: /home/build").unwrap_or_default() {
        match &entry.value.value {
            _ if entry.value.is_null() => {}
            Value::Scalar { text, .. } => texts.push((entry.key.to_owned(), text.clone())),
            _ => refuse(entry.value.at, entry.key, report),
        }
    }
    texts
}

fn refuse(at: Position, key: &str, report: &mut Report) {
    let problem = Problem::new("the value is a list or a mapping", "write a plain text");
    report.error(at, key, problem);
}

#[cfg(test)]
mod tests {
    use super::flat_mapping;

    #[test]
    fn plain_values_are_texts_and_nothing_is_left_out() {
        let found =
            flat_mapping(b"homedir: /root\npreamble: |\n  #!/bin/sh\n  set -e\ngit_variant: ~\n");
        let expected = [("homedir", "/root"), ("preamble", "#!/bin/sh\nset -e\n")];
        let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(found.unwrap(), expected);
        assert_eq!(flat_mapping(b"").unwrap(), []);
        assert!(flat_mapping(b"homedir: [a]").is_err());
        assert!(flat_mapping(b"- a").is_err());
    }
}
