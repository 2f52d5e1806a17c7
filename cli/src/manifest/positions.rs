//! Where each field of a document stands in its text.
//!
//! Pure. Built from parser events, so aliases are not expanded and cannot explode.

use granit_parser::{Event, Marker, Options, Parser};

use super::Segment;

/// serde_yaml refuses documents that nest deeper.
const DEPTH_MAX: usize = 128;

/// A value's place, and its fields'.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    line: usize,
    column: usize,
    inner: Inner,
}

#[derive(Clone, Debug, PartialEq)]
enum Inner {
    Scalar,
    Map(Vec<Entry>),
    List(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    key: String,
    line: usize,
    column: usize,
    value: Node,
}

/// A key that occurs twice in one map.
pub(super) struct Duplicate {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) first_line: usize,
}

impl Node {
    /// Reads the positions of a text of one document; none where the text cannot be parsed, which
    /// serde_yaml then explains.
    pub(super) fn parse(text: &str) -> Option<Node> {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.block_nesting_limit = DEPTH_MAX;
        options.flow_nesting_limit = DEPTH_MAX;
        let mut builder = Builder {
            open: Vec::new(),
            root: None,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.ok()?;
            builder.take(event, &span.start);
            if builder.open.len() > DEPTH_MAX {
                return None;
            }
        }
        builder.root
    }

    /// Line and column (from 1) of the field at `path`, or of as much of the way as there is.
    pub(super) fn locate(&self, path: &[Segment]) -> (usize, usize) {
        let (mut node, mut here) = (self, (self.line, self.column));
        for segment in path {
            let next = match (segment, &node.inner) {
                (Segment::Field(name), Inner::Map(entries)) => {
                    let entry = entries.iter().find(|entry| &entry.key == name);
                    entry.map(|entry| (&entry.value, (entry.line, entry.column)))
                }
                (Segment::Index(index), Inner::List(items)) => {
                    items.get(*index).map(|item| (item, (item.line, item.column)))
                }
                _ => None,
            };
            let Some((below, place)) = next else { break };
            (node, here) = (below, place);
        }
        here
    }

    /// The first key that a map has twice.
    pub(super) fn first_duplicate(&self) -> Option<Duplicate> {
        match &self.inner {
            Inner::Scalar => None,
            Inner::List(items) => items.iter().find_map(Node::first_duplicate),
            Inner::Map(entries) => {
                let mut seen = std::collections::HashMap::new();
                for entry in entries {
                    if let Some(first_line) = seen.insert(&entry.key, entry.line) {
                        let Entry {
                            key, line, column, ..
                        } = entry;
                        return Some(Duplicate {
                            key: key.clone(),
                            line: *line,
                            column: *column,
                            first_line,
                        });
                    }
                }
                entries.iter().find_map(|entry| entry.value.first_duplicate())
            }
        }
    }
}

/// Reads a server's field path: `spec.containers[0].image`, `metadata.labels[a/b]`.
pub(super) fn segments(field: &str) -> Vec<Segment> {
    let mut out = Vec::new();
    for part in field.split_inclusive(['.', ']']) {
        for word in part
            .trim_end_matches(['.', ']'])
            .split('[')
            .filter(|word| !word.is_empty())
        {
            let is_index = part.ends_with(']');
            match word.parse() {
                Ok(index) if is_index => out.push(Segment::Index(index)),
                _ => out.push(Segment::Field(word.to_owned())),
            }
        }
    }
    out
}

struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

struct Open {
    node: Node,
    /// In a map, the key whose value comes next.
    key: Option<(String, usize, usize)>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: &Marker) {
        let (line, column) = (at.line(), at.col() + 1);
        match event {
            Event::MappingStart(..) => self.open(line, column, Inner::Map(Vec::new())),
            Event::SequenceStart(..) => self.open(line, column, Inner::List(Vec::new())),
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(open) = self.open.pop() {
                    self.add(open.node, None);
                }
            }
            Event::Scalar(text, ..) => self.add(
                Node {
                    line,
                    column,
                    inner: Inner::Scalar,
                },
                Some(&text),
            ),
            Event::Alias(_) => self.add(
                Node {
                    line,
                    column,
                    inner: Inner::Scalar,
                },
                Some(""),
            ),
            _ => {}
        }
    }

    fn open(&mut self, line: usize, column: usize, inner: Inner) {
        self.open.push(Open {
            node: Node { line, column, inner },
            key: None,
        });
    }

    fn add(&mut self, node: Node, scalar: Option<&str>) {
        let Some(parent) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match &mut parent.node.inner {
            Inner::Scalar => {}
            Inner::List(items) => items.push(node),
            Inner::Map(entries) => match parent.key.take() {
                Some((key, line, column)) => entries.push(Entry {
                    key,
                    line,
                    column,
                    value: node,
                }),
                None => parent.key = Some((scalar.unwrap_or_default().to_owned(), node.line, node.column)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: Pod\nspec:\n  containers:\n  - name: a\n    env:\n    - {name: X, value: 1}\n";

    fn check(path: &str, expected: (usize, usize)) {
        assert_eq!(
            Node::parse(TEXT).unwrap().locate(&segments(path)),
            expected,
            "{path}"
        );
    }

    #[test]
    fn fields_are_found_by_path() {
        check("kind", (1, 1));
        check("spec.containers", (3, 3));
        check("spec.containers[0].name", (4, 5));
        check("spec.containers[0].env[0].value", (6, 17));
    }

    #[test]
    fn what_is_missing_is_placed_at_what_should_hold_it() {
        check("spec.containers[0].image", (4, 5));
        check("spec.nodeName", (2, 1));
        check("metadata.name", (1, 1));
    }
}
