//! What is looked at before a query is run: texts that are cheap to send and dear
//! to read.
//!
//! A parser that recurses must not be given deep nesting, a validator that compares
//! fields with each other not too many of them, and nobody a fragment that stands
//! twice in a fragment that stands twice in another.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned,
    parser::{
        parse_query,
        types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet},
    },
};

/// The most brackets within each other.
const DEPTH: usize = 64;
/// The longest text besides what stands in strings, in bytes.
const TEXT: usize = 16 << 10;
/// The most fields, with each fragment counted wherever it stands.
const FIELDS: usize = 4096;

/// Reads a query.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(super) fn read(query: &str) -> Result<ExecutableDocument, String> {
    let text = measure(query);
    if text.depth > DEPTH {
        return Err(format!("this query nests deeper than {DEPTH} brackets"));
    }
    if text.bytes > TEXT {
        return Err(format!(
            "this query is longer than {TEXT} bytes; send what is long as variables"
        ));
    }
    let document = parse_query(query).map_err(|error| error.to_string())?;
    let mut sizes = Sizes {
        fragments: &document.fragments,
        known: HashMap::new(),
    };
    let mut fields = 0_usize;
    for (_, operation) in document.operations.iter() {
        let size = sizes.of(&operation.node.selection_set.node)?;
        fields = fields.saturating_add(size);
    }
    for name in document.fragments.keys() {
        sizes.fragment(name)?;
    }
    if fields > FIELDS {
        return Err(format!("this query selects more than {FIELDS} fields"));
    }
    Ok(document)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Measure {
    depth: usize,
    bytes: usize,
}

/// Measures a text outside of its strings and comments.
fn measure(query: &str) -> Measure {
    let mut measure = Measure::default();
    let mut depth = 0_usize;
    let mut rest = query.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        measure.bytes += 1;
        rest = match first {
            b'"' => behind_string(rest),
            b'#' => {
                let end = behind.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                measure.bytes += end.unwrap_or(behind.len());
                &behind[end.unwrap_or(behind.len())..]
            }
            _ => behind,
        };
        match first {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        measure.depth = measure.depth.max(depth);
    }
    measure
}

/// What comes behind the string that this begins with.
fn behind_string(text: &[u8]) -> &[u8] {
    let quotes: &[u8] = if text.starts_with(b"\"\"\"") {
        b"\"\"\""
    } else {
        b"\""
    };
    let mut at = quotes.len();
    while at < text.len() {
        if text[at..].starts_with(quotes) {
            return &text[at + quotes.len()..];
        }
        // In a block string only `\"""` is an escape.
        let block = quotes.len() == 3;
        at += match text[at] {
            b'\\' if block && text[at + 1..].starts_with(quotes) => 4,
            b'\\' if !block => 2,
            // An end of line ends a string that has no end: the parser will say so.
            b'\n' if !block => return &text[at..],
            _ => 1,
        };
    }
    &[]
}

/// How many fields a fragment stands for; none while it is being counted.
struct Sizes<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    known: HashMap<&'a str, Option<usize>>,
}

impl<'a> Sizes<'a> {
    fn of(&mut self, set: &'a SelectionSet) -> Result<usize, String> {
        let mut size = 0_usize;
        for selection in &set.items {
            let more = match &selection.node {
                Selection::Field(field) => {
                    self.of(&field.node.selection_set.node)?.saturating_add(1)
                }
                Selection::InlineFragment(inline) => self.of(&inline.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => {
                    self.fragment(&spread.node.fragment_name.node)?
                }
            };
            size = size.saturating_add(more);
        }
        Ok(size)
    }

    fn fragment(&mut self, name: &str) -> Result<usize, String> {
        // One that is not there is the validator's to tell.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else {
            return Ok(0);
        };
        match self.known.get(name.as_str()) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Err(format!("the fragment `{name}` contains itself")),
            None => {}
        }
        if self.known.values().filter(|size| size.is_none()).count() >= DEPTH {
            return Err(format!("fragments nest deeper than {DEPTH}"));
        }
        self.known.insert(name, None);
        let size = self.of(&fragment.node.selection_set.node)?;
        self.known.insert(name, Some(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_and_comments_nest_nothing() {
        let flat = r#"{ a(b: "{{{\"{{", c: """ {{ \""" {{ """) } # {{{{"#;
        assert_eq!(measure(flat).depth, 2);
    }

    #[test]
    fn a_query_of_a_mebibyte_of_brackets_is_refused_before_it_is_parsed() {
        for bracket in ["{a", "[", "(a:", "{a(b:["] {
            let query = bracket.repeat((1 << 20) / bracket.len());
            assert!(read(&query).unwrap_err().contains("nests deeper"));
        }
    }

    #[test]
    fn fragments_that_double_each_other_are_counted_as_often_as_they_stand() {
        let mut query = String::from("{ ...f0 }");
        for n in 0..40 {
            let next = n + 1;
            query.push_str(&format!(
                " fragment f{n} on Query {{ ...f{next} ...f{next} }}"
            ));
        }
        query.push_str(" fragment f40 on Query { version { major } }");
        assert!(read(&query).unwrap_err().contains("more than 4096 fields"));
    }

    #[test]
    fn a_fragment_in_itself_is_refused() {
        let error = read("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }");
        assert!(error.unwrap_err().contains("contains itself"));
    }

    #[test]
    fn long_values_may_stand_in_strings() {
        let manifest = "x".repeat(1 << 20);
        assert!(
            read(&format!(
                "mutation {{ submit(manifest: \"{manifest}\") {{ id }} }}"
            ))
            .is_ok()
        );
        let fields = "a ".repeat(TEXT);
        assert!(
            read(&format!("{{ {fields} }}"))
                .unwrap_err()
                .contains("longer than")
        );
    }
}
