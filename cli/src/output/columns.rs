//! Custom columns: `-o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image`.
//!
//! Pure.

use anyhow::bail;
use serde_json::Value;

use super::jsonpath::Path;
use super::tabwriter::{TABLE, align};

/// Headers, and where their values are.
#[derive(Debug)]
pub(crate) struct Columns(Vec<(String, Path)>);

impl Columns {
    /// Reads the argument of `custom-columns`.
    pub(crate) fn parse(spec: &str) -> anyhow::Result<Columns> {
        if spec.is_empty() {
            bail!("custom-columns format specified but no custom columns given");
        }
        let column = |part: &str| match part.split_once(':') {
            Some((header, path)) if !header.is_empty() => Ok((header.to_owned(), Path::parse_relaxed(path)?)),
            _ => bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"),
        };
        spec.split(',')
            .map(column)
            .collect::<anyhow::Result<_>>()
            .map(Columns)
    }

    /// Reads a file of two lines, headers and paths.
    pub(crate) fn parse_file(text: &str) -> anyhow::Result<Columns> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let (Some(headers), Some(paths)) = (lines.next(), lines.next()) else {
            bail!("a file of custom columns has a line of headers and a line of paths");
        };
        let (headers, paths): (Vec<_>, Vec<_>) = (
            headers.split_whitespace().collect(),
            paths.split_whitespace().collect(),
        );
        if headers.len() != paths.len() {
            bail!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            );
        }
        let column = |(header, path): (&str, &str)| Ok((header.to_owned(), Path::parse_relaxed(path)?));
        headers
            .into_iter()
            .zip(paths)
            .map(column)
            .collect::<anyhow::Result<_>>()
            .map(Columns)
    }

    /// Lays out one row per object.
    pub(crate) fn render(&self, objects: &[&Value], headers: bool) -> String {
        let mut text = String::new();
        if headers {
            let names: Vec<&str> = self.0.iter().map(|(header, _)| header.as_str()).collect();
            text.push_str(&(names.join("\t") + "\n"));
        }
        for object in objects {
            let cells: Vec<String> = self.0.iter().map(|(_, path)| cell(&path.find(object))).collect();
            text.push_str(&(cells.join("\t") + "\n"));
        }
        align(TABLE, &text)
    }
}

fn cell(values: &[&Value]) -> String {
    if values.is_empty() {
        return "<none>".to_owned();
    }
    values
        .iter()
        .map(|value| display(value))
        .collect::<Vec<_>>()
        .join(",")
}

/// Go's `%v`, which custom columns show.
fn display(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(display).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", display(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::Columns;

    #[test]
    fn missing_values_are_none_and_lists_are_joined() {
        let columns =
            Columns::parse("NAME:.metadata.name,IMAGES:{.spec.c[*].image},LABELS:.metadata.labels").unwrap();
        let a = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"c": [{"image": "i"}, {"image": "j"}]}});
        let b = json!({"metadata": {"name": "b"}});
        expect![[r#"
            NAME   IMAGES   LABELS
            a      i,j      map[x:y]
            b      <none>   <none>
        "#]]
        .assert_eq(&columns.render(&[&a, &b], true));
    }

    #[test]
    fn a_column_without_path_is_refused() {
        let error = Columns::parse("NAME").unwrap_err();
        expect!["unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>"]
            .assert_eq(&error.to_string());
    }
}
