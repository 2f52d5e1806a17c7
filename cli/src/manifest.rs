//! Manifests: from files, folders, standard input and URLs to checked objects with positions.
//!
//! serde_yaml decides what a document means; granit-parser's events say where each field stands,
//! so that every complaint names file, line and column.

pub(crate) mod check;
mod fields;
mod kinds;
mod parse;
mod positions;
pub(crate) mod source;
pub(crate) mod suggest;

use serde_json::Value;

use crate::discovery::{Discovery, Resource};
use positions::Node;

pub(crate) use parse::parse;
pub(crate) use source::FileOptions;

/// One object of a manifest, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) value: Value,
    text: String,
    /// Lines of the file before this document.
    lines_before: usize,
    positions: Option<Node>,
}

/// A mistake in a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
    /// The source lines with a caret under the place.
    pub(crate) excerpt: String,
}

/// All mistakes that were found.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct ManifestError(pub(crate) Vec<Problem>);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.excerpt.is_empty() {
            Ok(())
        } else {
            write!(f, "\n{}", self.excerpt)
        }
    }
}

/// One step into an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Segment {
    Field(String),
    Index(usize),
}

impl Document {
    /// A mistake at a path: at its key, or at the nearest enclosing thing that stands in the text.
    fn problem(&self, path: &[Segment], message: String) -> Problem {
        let (line, column) = self.position(path);
        self.problem_at(line, column, message)
    }

    fn problem_at(&self, line: usize, column: usize, message: String) -> Problem {
        Problem {
            file: self.file.clone(),
            line: line + self.lines_before,
            column,
            message,
            excerpt: parse::excerpt(&self.text, line, column, self.lines_before),
        }
    }

    /// Line and column (from 1) within this document.
    fn position(&self, path: &[Segment]) -> (usize, usize) {
        self.positions.as_ref().map_or((1, 1), |root| root.locate(path))
    }

    /// `file:line:column` of a server's field path such as `spec.containers[0].image`.
    pub(crate) fn locate(&self, field: &str) -> String {
        let (line, column) = self.position(&positions::segments(field));
        format!("{}:{}:{column}", self.file, line + self.lines_before)
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }
}

/// An object of a manifest that the server has a place for.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) document: Document,
    pub(crate) resource: Resource,
}

/// Reads all that `-f` names; no server is needed to find mistakes of form.
pub(crate) async fn read(options: &FileOptions) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for (file, text) in source::read(options).await? {
        match parse(&file, &text) {
            Ok(found) => documents.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(documents)
    } else {
        Err(ManifestError(problems).into())
    }
}

/// Finds the server's resource for each document, and all mistakes that show without asking it.
pub(crate) fn resolve(
    documents: Vec<Document>,
    discovery: &Discovery,
    checks: check::Checks,
) -> Result<Vec<Manifest>, ManifestError> {
    let mut problems = Vec::new();
    let mut manifests = Vec::new();
    for document in documents {
        match check::check(&document, discovery, checks) {
            Ok(resource) => manifests.push(Manifest {
                resource: resource.clone(),
                document,
            }),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        Ok(manifests)
    } else {
        Err(ManifestError(problems))
    }
}

/// Reads and checks in one go, for verbs that only want to know which objects are meant.
pub(crate) async fn load(options: &FileOptions, discovery: &Discovery) -> anyhow::Result<Vec<Manifest>> {
    let checks = check::Checks {
        fields: false,
        generate_name: false,
    };
    Ok(resolve(read(options).await?, discovery, checks)?)
}
