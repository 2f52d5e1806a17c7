//! Field selectors: `metadata.name=web,status.phase!=Running`.

use crate::kind::Kind;
use crate::object::Object;
use crate::status::Status;

/// Picks objects by the few fields that their kind offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads a selector for a kind; a field that the kind does not offer is an error.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for part in split(text).into_iter().filter(|part| !part.is_empty()) {
            let term = Term::parse(&part).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid field selector \"{text}\"; can't understand '{part}'"
                ))
            })?;
            if !kind.field_labels().contains(&term.field.as_str()) {
                return Err(Status::bad_request(format!(
                    "field label not supported: {}",
                    term.field
                )));
            }
            terms.push(term);
        }
        Ok(Self { terms })
    }

    /// Whether it picks everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the object is picked.
    pub fn matches(&self, kind: &Kind, object: &dyn Object) -> bool {
        self.is_empty() || self.matches_fields(&kind.fields(object))
    }

    /// Whether an object with these fields is picked.
    fn matches_fields(&self, fields: &[(&'static str, String)]) -> bool {
        self.terms.iter().all(|term| {
            let found = fields.iter().find(|(name, _)| *name == term.field);
            let found = found.map_or("", |(_, value)| value.as_str());
            (found == term.value) == term.equal
        })
    }

    /// The value that a field must have, where the selector demands one; for finding objects by name.
    pub fn exactly(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.equal && term.field == field)?;
        Some(&term.value)
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let (field, value, equal) = if let Some((field, value)) = text.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = text.split_once("==") {
            (field, value, true)
        } else {
            let (field, value) = text.split_once('=')?;
            (field, value, true)
        };
        Some(Self {
            field: field.trim().into(),
            value: unescape(value)?,
            equal,
        })
    }
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            ',' => parts.push(String::new()),
            '\\' => {
                parts[last].push(c);
                parts[last].extend(chars.next());
            }
            _ => parts[last].push(c),
        }
    }
    parts
}

/// Turns `\\`, `\,` and `\=` into what they stand for; a bare `,` or `=` is an error.
fn unescape(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            _ => value.push(c),
        }
    }
    Some(value)
}
