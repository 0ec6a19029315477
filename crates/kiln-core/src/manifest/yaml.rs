//! From text to a tree of YAML nodes, within limits.
//!
//! saphyr-parser gives events, this module builds [`Node`]s of them without recursion. It
//! refuses what a manifest has no use for (several documents, tags of one's own) and what
//! could make a small text a large tree: nesting beyond [`MAX_DEPTH`], and aliases beyond
//! [`MAX_ALIASED`]. Scalars keep their text as it was written; what it means (a number, a
//! boolean, nothing at all) is decided where a value is read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::{Position, Problem, quoted};
use super::syntax;
use super::text::Located;

/// How deep lists and mappings may be inside each other; real manifests need four levels.
const MAX_DEPTH: usize = 64;

/// How much all aliases together may repeat, in bytes of text and nodes.
const MAX_ALIASED: usize = 256 * 1024;

/// A value with the place it was read from.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
    /// Nodes and bytes of text in this tree: what an alias to it costs.
    weight: usize,
    /// Levels of lists and mappings in this tree.
    height: usize,
}

/// The three kinds of YAML values.
#[derive(Debug)]
pub(super) enum Value {
    /// Text. `plain` when it was written without quotes, so that it may mean something else.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    fn new(at: Position, value: Value) -> Self {
        let parts: Vec<&Node> = match &value {
            Value::Scalar { .. } => Vec::new(),
            Value::Sequence(items) => items.iter().map(Rc::as_ref).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .flat_map(|(k, v)| [k.as_ref(), v.as_ref()])
                .collect(),
        };
        let own = match &value {
            Value::Scalar { text, .. } => text.len(),
            _ => 0,
        };
        let weight = 1 + own + parts.iter().map(|n| n.weight).sum::<usize>();
        let below = parts.iter().map(|n| n.height).max().unwrap_or(0);
        let height = below + usize::from(!matches!(value, Value::Scalar { .. }));
        Self {
            at,
            value,
            weight,
            height,
        }
    }

    /// Whether the value was left out, or is one of YAML's words for nothing.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Reads the one document of the text; `None` when there is nothing in it.
pub(super) fn read(text: &str) -> Result<Option<Rc<Node>>, Located> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax::explain(&error, text))?;
        builder.take(event, span)?;
    }
    Ok(builder.root)
}

/// A list or mapping whose end hasn't been read yet.
struct Open {
    at: Position,
    anchor: usize,
    value: Value,
    /// A mapping's key that still waits for its value.
    key: Option<Rc<Node>>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    aliased: usize,
    documents: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Located> {
        let at = position(&span.start);
        match event {
            Event::DocumentStart(_) => self.begin_document(at),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = is_plain(style, tag.as_deref(), at)?;
                let text = text.into_owned();
                let node = Node::new(at, Value::Scalar { text, plain });
                self.complete(anchor, Rc::new(node))
            }
            Event::Alias(anchor) => self.repeat(anchor, at),
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_ref(), "seq", at)?;
                self.begin(at, anchor, Value::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_ref(), "map", at)?;
                self.begin(at, anchor, Value::Mapping(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let node = Node::new(open.at, open.value);
                    self.complete(open.anchor, Rc::new(node))
                }
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin_document(&mut self, at: Position) -> Result<(), Located> {
        self.documents += 1;
        if self.documents > 1 {
            let remedy = "remove the `---` and what follows, or submit it as a job of its own";
            return Err((
                at,
                Problem::new("a second YAML document begins here", remedy),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, value: Value) -> Result<(), Located> {
        self.check_depth(at, 1)?;
        self.open.push(Open {
            at,
            anchor,
            value,
            key: None,
        });
        Ok(())
    }

    fn check_depth(&self, at: Position, more: usize) -> Result<(), Located> {
        if self.open.len() + more > MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
            let remedy = "a manifest needs four levels: remove the surplus brackets or indentation";
            return Err((at, Problem::new(message, remedy)));
        }
        Ok(())
    }

    fn repeat(&mut self, anchor: usize, at: Position) -> Result<(), Located> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let remedy = "write the value out";
            return Err((
                at,
                Problem::new("this alias is inside the value it repeats", remedy),
            ));
        };
        // Aliases of aliases must not get around the limit of depth either: dropping the tree
        // is recursive.
        self.check_depth(at, node.height)?;
        self.aliased = self.aliased.saturating_add(node.weight);
        if self.aliased > MAX_ALIASED {
            let message = "the aliases of this manifest repeat too much";
            return Err((
                at,
                Problem::new(message, "write the values out where they are needed"),
            ));
        }
        self.attach(node);
        Ok(())
    }

    fn complete(&mut self, anchor: usize, node: Rc<Node>) -> Result<(), Located> {
        // saphyr-parser numbers anchors from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node);
        Ok(())
    }

    fn attach(&mut self, node: Rc<Node>) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(entries) => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => open.key = Some(node),
            },
            Value::Scalar { .. } => {}
        }
    }
}

/// saphyr-parser counts lines from 1 and columns, in characters, from 0.
pub(super) fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

/// Whether a scalar's text may mean something other than text.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<bool, Located> {
    match tag {
        None => Ok(style == ScalarStyle::Plain),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(false),
            "int" | "float" | "bool" | "null" => Ok(true),
            _ => Err(unknown_tag(tag, at)),
        },
        // A lone `!` says: take it as text.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(false),
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn check_tag(tag: Option<&Cow<'_, Tag>>, only: &str, at: Position) -> Result<(), Located> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == only) => {
            Err(unknown_tag(tag, at))
        }
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> Located {
    let name = match tag.handle.as_str() {
        "tag:yaml.org,2002:" => format!("!!{}", tag.suffix),
        handle => format!("{handle}{}", tag.suffix),
    };
    let message = format!("the tag {} means nothing in a manifest", quoted(&name));
    let remedy = "remove it, or put quotes around text that begins with `!`";
    (at, Problem::new(message, remedy))
}
