//! Tables of `get`: the server's `meta.k8s.io/v1` Table, with the columns that flags add.
//!
//! Pure.

use serde::Deserialize;
use serde_json::Value;

use super::tabwriter::{TABLE, align_remembering};

/// What a server answers to `Accept: …;as=Table`; rows of a watch may lack the definitions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Table {
    pub(crate) metadata: Value,
    pub(crate) column_definitions: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// One column.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// 0 is always shown, others only with `-o wide`.
    pub(crate) priority: i64,
}

/// One object's cells, and its metadata or all of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Value>,
    pub(crate) object: Value,
}

/// What flags ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    pub(crate) wide: bool,
    pub(crate) no_headers: bool,
    pub(crate) with_namespace: bool,
    /// `deployment.apps`: put before each name.
    pub(crate) kind_prefix: Option<String>,
    pub(crate) show_labels: bool,
    pub(crate) label_columns: Vec<String>,
}

/// Lays out tables; keeps columns and widths between the portions of a watch.
#[derive(Debug, Default)]
pub(crate) struct Printer {
    style: Style,
    columns: Vec<Column>,
    widths: Vec<usize>,
    headers_printed: bool,
}

impl Printer {
    pub(crate) fn new(style: Style) -> Printer {
        Printer {
            style,
            ..Printer::default()
        }
    }

    /// The lines for one more portion of rows.
    pub(crate) fn print(&mut self, table: Table) -> String {
        if !table.column_definitions.is_empty() {
            self.columns = table.column_definitions;
        }
        let mut text = String::new();
        if !self.headers_printed && !self.style.no_headers && !table.rows.is_empty() {
            text.push_str(&self.headers());
        }
        self.headers_printed |= !table.rows.is_empty();
        for row in &table.rows {
            text.push_str(&self.row(row));
        }
        align_remembering(TABLE, &text, &mut self.widths)
    }

    fn headers(&self) -> String {
        let namespace = self.style.with_namespace.then(|| "NAMESPACE".to_owned());
        let columns = self
            .columns
            .iter()
            .filter(|column| self.shows(column))
            .map(|column| column.name.to_uppercase());
        let labels = self.style.label_columns.iter().map(|label| {
            let last = label.rsplit('/').next().unwrap_or(label);
            last.to_uppercase()
        });
        let all_labels = self.style.show_labels.then(|| "LABELS".to_owned());
        join(
            namespace
                .into_iter()
                .chain(columns)
                .chain(labels)
                .chain(all_labels),
        )
    }

    fn row(&self, row: &Row) -> String {
        let metadata = &row.object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = self.style.with_namespace.then(|| text(&metadata["namespace"]));
        let shown = row
            .cells
            .iter()
            .enumerate()
            .filter(|(index, _)| self.columns.get(*index).is_none_or(|column| self.shows(column)));
        let cells = shown.map(|(index, value)| match (&self.style.kind_prefix, index) {
            (Some(prefix), 0) => format!("{prefix}/{}", cell(value)),
            _ => cell(value),
        });
        let labels = self
            .style
            .label_columns
            .iter()
            .map(|label| metadata["labels"][label].as_str().unwrap_or_default().to_owned());
        let all_labels = self.style.show_labels.then(|| format_labels(&metadata["labels"]));
        join(namespace.into_iter().chain(cells).chain(labels).chain(all_labels))
    }

    fn shows(&self, column: &Column) -> bool {
        self.style.wide || column.priority == 0
    }
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn format_labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

fn join(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join("\t") + "\n"
}

/// A cell is one line; control characters in it would reach the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    };
    let first_line = match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", &text[..end]),
        None => text,
    };
    first_line
        .chars()
        .map(|c| {
            if c == '\u{1b}' {
                "^[".to_owned()
            } else {
                c.to_string().replace('\t', " ")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(style: Style, expected: Expect) {
        let table = serde_json::from_value(json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "Node", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "server-1"], "object": {"metadata": {"namespace": "default", "labels": {"app": "web", "a/tier": "x"}}}},
                {"cells": ["web-22", "0/1", null], "object": {"metadata": {"namespace": "kube-system"}}},
            ],
        }));
        expected.assert_eq(&Printer::new(style).print(table.unwrap()));
    }

    #[test]
    fn narrow_tables_leave_out_columns_of_lower_priority() {
        check(
            Style::default(),
            expect![[r#"
                NAME     READY
                web-1    1/1
                web-22   0/1
            "#]],
        );
    }

    #[test]
    fn flags_add_columns() {
        check(
            Style {
                wide: true,
                with_namespace: true,
                kind_prefix: Some("pod".into()),
                show_labels: true,
                label_columns: vec!["a/tier".into()],
                ..Style::default()
            },
            expect![[r#"
                NAMESPACE     NAME         READY   NODE       TIER   LABELS
                default       pod/web-1    1/1     server-1   x      a/tier=x,app=web
                kube-system   pod/web-22   0/1     <nil>             <none>
            "#]],
        );
    }

    #[test]
    fn headers_can_be_left_out() {
        check(
            Style {
                no_headers: true,
                ..Style::default()
            },
            expect![[r#"
                web-1    1/1
                web-22   0/1
            "#]],
        );
    }
}
