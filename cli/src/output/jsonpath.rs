//! kubectl's dialect of JSONPath: templates such as `{range .items[*]}{.metadata.name}{"\n"}{end}`.
//!
//! Pure. Crates for JSONPath follow RFC 9535, which knows neither templates nor `range`, nor
//! escaped dots, nor kubectl's rule that a missing field is nothing rather than an error.

mod evaluate;
mod parse;

use serde_json::Value;

/// A whole template: text and actions.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    parts: Vec<Part>,
}

/// One path, as `--sort-by` and custom columns have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    /// Starts at the document (`$`), not at the current object (`@` or nothing).
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Print(Path),
    Range { over: Path, body: Vec<Part> },
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    /// `..`: the value and everything below it.
    Descend,
    Fields(Vec<String>),
    Indices(Vec<i64>),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        step: i64,
    },
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Exists(Operand),
    Compare(Operand, Comparison, Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonPathError {
    #[error("error parsing jsonpath {template}, {reason}")]
    Parse { template: String, reason: String },
    #[error(
        "error executing jsonpath \"{template}\": array index out of bounds: index {index}, length {length}"
    )]
    OutOfBounds {
        template: String,
        index: i64,
        length: usize,
    },
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(source: &str) -> Result<Template, JsonPathError> {
        match parse::template(source) {
            Ok(parts) => Ok(Template {
                source: source.to_owned(),
                parts,
            }),
            Err(reason) => Err(JsonPathError::Parse {
                template: source.to_owned(),
                reason,
            }),
        }
    }

    /// Fills the template from a document.
    pub(crate) fn render(&self, document: &Value) -> Result<String, JsonPathError> {
        let mut out = String::new();
        match evaluate::render(&self.parts, document, document, &mut out) {
            Ok(()) => Ok(out),
            Err(evaluate::OutOfBounds { index, length }) => Err(JsonPathError::OutOfBounds {
                template: self.source.clone(),
                index,
                length,
            }),
        }
    }
}

impl Path {
    /// Reads a path with or without braces and leading dot: `{.a.b}`, `.a.b`, `a.b`.
    pub(crate) fn parse_relaxed(source: &str) -> Result<Path, JsonPathError> {
        parse::relaxed(source).map_err(|reason| JsonPathError::Parse {
            template: source.to_owned(),
            reason,
        })
    }

    /// All values at the path; none where it leads nowhere.
    pub(crate) fn find<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        evaluate::find(self, document, document).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn pods() -> Value {
        json!({"items": [
            {"metadata": {"name": "a", "labels": {"app": "web", "kubernetes.io/role": "x"}}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}]}, "ready": true},
            {"metadata": {"name": "b", "labels": {"app": "db"}}, "spec": {"ports": []}, "ready": false},
            {"metadata": {"name": "c"}, "n": 3},
        ]})
    }

    fn check(template: &str, expected: Expect) {
        let out = Template::parse(template).and_then(|template| template.render(&pods()));
        expected.assert_eq(&out.unwrap_or_else(|error| error.to_string()));
    }

    #[test]
    fn fields_lists_and_text() {
        check("{.items[*].metadata.name}", expect!["a b c"]);
        check(
            "{.items[0].metadata.name}{'\\n'}x",
            expect![[r#"
            a
            x"#]],
        );
        check("{$.items[-1:].metadata.name}", expect!["c"]);
        check("{.items[0,2].metadata.name}", expect!["a c"]);
        check("{.items[0:2].metadata['name','labels'].app}", expect!["web db"]);
        check("{.items[0].metadata.labels.kubernetes\\.io/role}", expect!["x"]);
        check("{.items[0]['metadata']['name']}", expect!["a"]);
        check(
            "{.items[0].metadata.labels}",
            expect![[r#"{"app":"web","kubernetes.io/role":"x"}"#]],
        );
        check("{.items[*].ready} {.missing.x}", expect!["true false "]);
        check("{..port}", expect!["80 53"]);
        check("no braces", expect!["no braces"]);
    }

    #[test]
    fn ranges_and_filters() {
        check(
            r#"{range .items[*]}{.metadata.name}{"\t"}{.ready}{"\n"}{end}"#,
            expect![[r#"
                a	true
                b	false
                c	
            "#]],
        );
        check(
            r#"{.items[?(@.metadata.labels.app=="db")].metadata.name}"#,
            expect!["b"],
        );
        check(
            r#"{.items[?(@.metadata.labels.app != "db")].metadata.name}"#,
            expect!["a"],
        );
        check(r#"{.items[?(@.n)].metadata.name}"#, expect!["c"]);
        check(r#"{.items[?(@.ready==true)].metadata.name}"#, expect!["a"]);
        check(r#"{.items[*].spec.ports[?(@.port>=80)].name}"#, expect!["http"]);
        check(
            r#"{range .items[0].spec.ports[*]}{range @}{.port},{end}{end}"#,
            expect!["80,53,"],
        );
    }

    #[test]
    fn mistakes_are_named() {
        check(
            "{.items[}",
            expect!["error parsing jsonpath {.items[}, unterminated array"],
        );
        check("{.a", expect!["error parsing jsonpath {.a, unclosed action"]);
        check(
            "{range .items[*]}x",
            expect!["error parsing jsonpath {range .items[*]}x, unclosed range: add {end}"],
        );
        check(
            "{end}",
            expect!["error parsing jsonpath {end}, not in range: {end} without {range}"],
        );
        check(
            "{.items[9]}",
            expect![[
                r#"error executing jsonpath "{.items[9]}": array index out of bounds: index 9, length 3"#
            ]],
        );
    }

    #[test]
    fn relaxed_paths_do_without_braces() {
        for path in [
            "{.metadata.name}",
            ".metadata.name",
            "metadata.name",
            "{metadata.name}",
        ] {
            let found = Path::parse_relaxed(path).unwrap().find(&pods()["items"][0]).len();
            assert_eq!(found, 1, "{path}");
        }
    }
}
