//! The table of messages and their fields.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) number: u32,
    /// The name in JSON; `<` for a message whose fields stand in the place of the field.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) type_: Type,
}

/// How often a field may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    /// From strings.
    Map,
}

/// What a field, an element or a map's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Integer,
    Boolean,
    Double,
    Bytes,
    Message(&'static str),
}

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    include_str!("../../protobuf/fields.txt")
        .lines()
        .filter_map(line)
        .collect()
});

/// The fields of a message.
pub(super) fn message(name: &str) -> Option<&'static [Field]> {
    MESSAGES.get(name).map(Vec::as_slice)
}

fn line(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let name = words.next()?;
    Some((name, words.filter_map(field).collect()))
}

fn field(word: &'static str) -> Option<Field> {
    let mut parts = word.splitn(3, ':');
    let (number, name, type_) = (parts.next()?, parts.next()?, parts.next()?);
    let (shape, type_) = match type_.as_bytes().first()? {
        b'*' => (Shape::List, &type_[1..]),
        b'=' => (Shape::Map, &type_[1..]),
        _ => (Shape::One, type_),
    };
    let type_ = match type_ {
        "s" => Type::String,
        "i" => Type::Integer,
        "b" => Type::Boolean,
        "d" => Type::Double,
        "y" => Type::Bytes,
        message => Type::Message(message.strip_prefix("m@")?),
    };
    Some(Field {
        number: number.parse().ok()?,
        name,
        shape,
        type_,
    })
}

#[cfg(test)]
mod tests {

    #[test]
    fn every_line_is_understood() {
        let text = include_str!("../../protobuf/fields.txt");
        for line in text.lines() {
            let words = line.split(' ').filter(|word| !word.is_empty()).count() - 1;
            let (name, fields) = super::line(line).unwrap();
            assert_eq!(fields.len(), words, "{name}");
        }
    }
}
