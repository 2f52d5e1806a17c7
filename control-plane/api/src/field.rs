//! What is wrong with which field, in Kubernetes' wording.

use std::fmt::{self, Display};

use crate::status::Cause;

/// Path of a field; a chain on the stack that is only written out when there is something to report.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A top-level field, like `spec`.
    pub const fn root(field: &'a str) -> Self {
        Self {
            parent: None,
            segment: Segment::Field(field),
        }
    }

    /// A field of the object at this path.
    pub const fn child(&'a self, field: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Field(field),
        }
    }

    /// An item of the list at this path.
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Index(index),
        }
    }

    /// An entry of the map at this path.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Key(key),
        }
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field.
    pub field: String,
    /// Class of the mistake.
    pub problem: Problem,
    /// The value as Kubernetes quotes it; empty when it is not quoted.
    pub value: String,
    /// The sentence that says why.
    pub detail: String,
}

/// Class of a field's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Kubernetes' own")]
pub enum Problem {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
}

impl Problem {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Required => ("FieldValueRequired", "Required value"),
            Self::Invalid => ("FieldValueInvalid", "Invalid value"),
            Self::NotSupported => ("FieldValueNotSupported", "Unsupported value"),
            Self::Duplicate => ("FieldValueDuplicate", "Duplicate value"),
            Self::Forbidden => ("FieldValueForbidden", "Forbidden"),
            Self::TooLong => ("FieldValueTooLong", "Too long"),
            Self::TooMany => ("FieldValueTooMany", "Too many"),
            Self::NotFound => ("FieldValueNotFound", "Not found"),
        }
    }
}

impl FieldError {
    /// The message without the field.
    pub fn body(&self) -> String {
        let mut body = self.problem.parts().1.to_owned();
        for part in [&self.value, &self.detail] {
            if !part.is_empty() {
                body.push_str(": ");
                body.push_str(part);
            }
        }
        body
    }

    /// The entry in a status' details.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: self.problem.parts().0.into(),
            message: self.body(),
            field: self.field.clone(),
        }
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Collects what is wrong while an object is being validated.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Everything that was found, in order.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much is wrong so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, path: Path<'_>, problem: Problem, value: String, detail: impl Into<String>) {
        self.0.push(FieldError {
            field: path.to_string(),
            problem,
            value,
            detail: detail.into(),
        });
    }

    /// A value must be given.
    pub fn required(&mut self, path: Path<'_>, detail: impl Into<String>) {
        self.push(path, Problem::Required, String::new(), detail);
    }

    /// The value is not allowed.
    pub fn invalid(&mut self, path: Path<'_>, value: impl Quoted, detail: impl Into<String>) {
        self.push(path, Problem::Invalid, value.quoted(), detail);
    }

    /// The value is none of a fixed set.
    pub fn not_supported(&mut self, path: Path<'_>, value: impl Quoted, supported: &[&str]) {
        let mut supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        supported.sort();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(path, Problem::NotSupported, value.quoted(), detail);
    }

    /// The value was there before.
    pub fn duplicate(&mut self, path: Path<'_>, value: impl Quoted) {
        self.push(path, Problem::Duplicate, value.quoted(), "");
    }

    /// The field may not be set or changed here.
    pub fn forbidden(&mut self, path: Path<'_>, detail: impl Into<String>) {
        self.push(path, Problem::Forbidden, String::new(), detail);
    }

    /// The value is longer than `bytes_max`.
    pub fn too_long(&mut self, path: Path<'_>, bytes_max: usize) {
        self.push(
            path,
            Problem::TooLong,
            String::new(),
            format!("may not be more than {bytes_max} bytes"),
        );
    }

    /// There is nothing of that name.
    pub fn not_found(&mut self, path: Path<'_>, value: impl Quoted) {
        self.push(path, Problem::NotFound, value.quoted(), "");
    }
}

/// A value as Kubernetes quotes it in messages: strings in quotes, numbers bare.
pub trait Quoted {
    /// The quoted form.
    fn quoted(&self) -> String;
}

impl Quoted for str {
    fn quoted(&self) -> String {
        format!("{self:?}")
    }
}

impl Quoted for String {
    fn quoted(&self) -> String {
        format!("{self:?}")
    }
}

/// A value that is already in the form in which it is to be shown.
pub struct Verbatim(pub String);

impl Quoted for Verbatim {
    fn quoted(&self) -> String {
        self.0.clone()
    }
}

macro_rules! bare {
    ($($type:ty),*) => {$(
        impl Quoted for $type {
            fn quoted(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
bare!(i32, i64, u32, u64, usize, bool);

impl<T: Quoted + ?Sized> Quoted for &T {
    fn quoted(&self) -> String {
        (**self).quoted()
    }
}
