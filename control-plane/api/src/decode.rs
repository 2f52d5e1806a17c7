//! Reads objects strictly: unknown and duplicate fields are found by path, wrong types named by path.

mod duplicates;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use crate::builder::KindType;
use crate::kind::Kind;
use crate::object::Object;
use crate::status::Status;

/// What happens to unknown and duplicate fields; the query parameter `fieldValidation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// They fail the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; an empty one means the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// An object that was read, and what to warn its sender about.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Unknown and duplicate fields under [`FieldValidation::Warn`].
    pub warnings: Vec<String>,
}

/// Reads a kind from a request's body.
pub(crate) fn from_slice<T: KindType>(
    kind: &Kind,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let mut problems = Vec::new();
    let object: T = if validation == FieldValidation::Ignore {
        serde_json::from_slice(json).map_err(|error| explain::<T>(kind, json, &error))?
    } else {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let object = noting_unknown(&mut reader, &mut problems);
        let object = object.and_then(|object| reader.end().map(|()| object));
        let object = object.map_err(|error| explain::<T>(kind, json, &error))?;
        problems.extend(duplicates::find(json).map_err(|error| explain::<T>(kind, json, &error))?);
        object
    };
    finish(kind, object, problems, validation)
}

/// Reads a kind from a value that a patch has made.
pub(crate) fn from_value<T: KindType>(
    kind: &Kind,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let mut problems = Vec::new();
    let object = match noting_unknown::<T, _>(&value, &mut problems) {
        Ok(object) => object,
        Err(error) => {
            let error = serde_path_to_error::deserialize::<_, T>(value)
                .err()
                .map_or_else(|| error.to_string(), |error| located(error.path(), error.inner()));
            return Err(cannot_be_handled(kind, kind.kind, kind.version, &error));
        }
    };
    finish(kind, object, problems, validation)
}

/// Reads a request body that is not a stored kind (`Scale`, `Binding`, `DeleteOptions`, `Eviction`).
pub fn body<T: DeserializeOwned>(json: &[u8]) -> Result<T, Status> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| Status::bad_request(format!("cannot read the request's body: {error}")))
}

fn noting_unknown<'de, T, D>(reader: D, problems: &mut Vec<String>) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde_ignored::deserialize(reader, |path| {
        let mut field = String::new();
        write_path(&path, &mut field);
        problems.push(format!("unknown field {field:?}"));
    })
}

fn write_path(path: &serde_ignored::Path<'_>, to: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            write_path(parent, to);
            to.push_str(&format!("[{index}]"));
        }
        Path::Map { parent, key } => {
            write_path(parent, to);
            if !to.is_empty() {
                to.push('.');
            }
            to.push_str(key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            write_path(parent, to);
        }
    }
}

fn finish<T: KindType>(
    kind: &Kind,
    object: T,
    problems: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let object = Box::new(object);
    match validation {
        FieldValidation::Ignore => Ok(Decoded {
            object,
            warnings: Vec::new(),
        }),
        FieldValidation::Warn => Ok(Decoded {
            object,
            warnings: problems,
        }),
        FieldValidation::Strict if problems.is_empty() => Ok(Decoded {
            object,
            warnings: Vec::new(),
        }),
        FieldValidation::Strict => {
            let problem = format!("strict decoding error: {}", problems.join(", "));
            Err(cannot_be_handled(kind, kind.kind, kind.version, &problem))
        }
    }
}

/// `Deployment in version "v1" cannot be handled as a Deployment: <problem>`
fn cannot_be_handled(kind: &Kind, found_kind: &str, found_version: &str, problem: &str) -> Status {
    let expected = kind.kind;
    Status::bad_request(format!(
        "{found_kind} in version {found_version:?} cannot be handled as a {expected}: {problem}"
    ))
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct TypeMeta {
    api_version: Option<String>,
    kind: Option<String>,
}

/// Says what is wrong with a body that could not be read.
fn explain<T: DeserializeOwned>(kind: &Kind, json: &[u8], error: &serde_json::Error) -> Status {
    if error.classify() != Category::Data {
        return Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"));
    }
    let found: TypeMeta = serde_json::from_slice(json).unwrap_or_default();
    if let Some(version) = found
        .api_version
        .as_deref()
        .filter(|version| *version != kind.api_version())
    {
        return Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            kind.api_version()
        ));
    }
    if let Some(name) = found.kind.as_deref().filter(|name| *name != kind.kind) {
        let expected = kind.kind;
        return Status::bad_request(format!(
            "the kind in the data ({name}) does not match the expected kind ({expected})"
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let problem = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) => located(error.path(), error.inner()),
        Ok(_) => error.to_string(),
    };
    cannot_be_handled(kind, kind.kind, kind.version, &problem)
}

fn located(path: &serde_path_to_error::Path, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    format!("json: {path}: {message}")
}

#[cfg(test)]
mod tests;
