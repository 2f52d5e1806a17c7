//! Prints whole objects: `-o json|yaml|name|jsonpath=…|custom-columns=…`.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::columns::Columns;
use super::jsonpath::Template;
use super::yaml;

/// What `-o` asked for.
#[derive(Debug, Default)]
pub(crate) enum Format {
    /// The server's table, `wide` with all its columns.
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
    JsonPath(Template),
    Columns(Columns),
}

impl Format {
    /// Reads the value of `-o`.
    pub(crate) fn parse(text: Option<&str>) -> anyhow::Result<Format> {
        let Some(text) = text else {
            return Ok(Format::Table);
        };
        let (word, argument) = text
            .split_once('=')
            .map_or((text, None), |(word, argument)| (word, Some(argument)));
        Ok(match (word, argument) {
            ("wide", None) => Format::Wide,
            ("json", None) => Format::Json,
            ("yaml", None) => Format::Yaml,
            ("name", None) => Format::Name,
            ("jsonpath", Some(template)) => Format::JsonPath(Template::parse(template)?),
            ("jsonpath-file", Some(path)) => {
                let template =
                    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
                Format::JsonPath(Template::parse(&template)?)
            }
            ("custom-columns", Some(spec)) => Format::Columns(Columns::parse(spec)?),
            ("custom-columns-file", Some(path)) => {
                let spec = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
                Format::Columns(Columns::parse_file(&spec)?)
            }
            ("jsonpath" | "custom-columns" | "jsonpath-file" | "custom-columns-file", None) => {
                bail!("-o {word} needs a value: -o {word}=…")
            }
            _ => bail!(
                "unable to match a printer suitable for the output format \"{word}\", allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
            ),
        })
    }

    /// Whether the server's table is shown rather than objects.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// Renders one object, or the list that several make.
pub(crate) fn render(format: &Format, value: &Value, headers: bool) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => json(value),
        Format::Yaml => yaml::to_yaml(value),
        Format::Name => items(value)
            .map(|object| format!("{}\n", reference(object)))
            .collect(),
        Format::JsonPath(template) => template.render(value)?,
        Format::Columns(columns) => columns.render(&items(value).collect::<Vec<_>>(), headers),
        Format::Table | Format::Wide => bail!("a table comes from the server"),
    })
}

/// The `v1` List that kubectl wraps several objects in.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// JSON in Go's form: four spaces, and `<`, `>` and `&` escaped inside strings.
pub(crate) fn json(value: &Value) -> String {
    use serde::Serialize as _;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "a JSON value always serialises");
    let text = String::from_utf8_lossy(&bytes);
    // These three can stand nowhere else in JSON than inside a string.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        + "\n"
}

/// `pod/web-1`, from the object alone.
pub(crate) fn reference(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("<unknown>").to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or("<unknown>");
    match object["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'))
    {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value["items"].as_array();
    let single = list.is_none().then_some(value);
    list.into_iter().flatten().chain(single)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn json_is_written_as_go_writes_it() {
        expect_test::expect![[r#"
            {
                "a": "\u003cnone\u003e \u0026",
                "b": [],
                "c": {}
            }
        "#]]
        .assert_eq(&super::json(&json!({"a": "<none> &", "b": [], "c": {}})));
    }
}
