//! The pieces that all descriptions are made of.
//!
//! Pure. Tabs end cells; the tab writer aligns them at the end.

use jiff::Timestamp;
use serde_json::Value;

/// Annotations that say nothing to a reader.
const HIDDEN_ANNOTATION: &str = crate::merge::LAST_APPLIED;
/// Longer values stand on a line of their own.
const ANNOTATION_CHARS_MAX: usize = 140;

/// A description that is being written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// One line, two spaces deep per level.
    pub(super) fn line(&mut self, level: usize, line: impl AsRef<str>) {
        self.0.extend(std::iter::repeat_n("  ", level));
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// `Title:` and a value, which is `<none>` if there is none.
    pub(super) fn field(&mut self, level: usize, title: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        let value = if value.is_empty() { "<none>" } else { value };
        self.line(level, format!("{title}:\t{value}"));
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Name, namespace where there is one.
    pub(super) fn name(&mut self, object: &Value) {
        self.field(0, "Name", text(&object["metadata"]["name"]));
        if object["metadata"]["namespace"].is_string() {
            self.field(0, "Namespace", text(&object["metadata"]["namespace"]));
        }
    }

    /// One `key=value` per line.
    pub(super) fn labels(&mut self, level: usize, title: &str, labels: &Value) {
        let pairs = pairs(labels).map(|(key, value)| format!("{key}={value}"));
        self.list(level, title, &pairs.collect::<Vec<_>>());
    }

    /// One `key: value` per line.
    pub(super) fn annotations(&mut self, level: usize, annotations: &Value) {
        let mut lines = Vec::new();
        for (key, value) in pairs(annotations).filter(|(key, _)| key != HIDDEN_ANNOTATION) {
            if value.contains('\n') || key.len() + value.len() + 2 > ANNOTATION_CHARS_MAX {
                lines.push(format!("{key}:"));
                for line in value.lines() {
                    let cut: String = line.chars().take(ANNOTATION_CHARS_MAX).collect();
                    let dots = if cut.len() < line.len() { "..." } else { "" };
                    lines.push(format!("  {cut}{dots}"));
                }
            } else {
                lines.push(format!("{key}: {value}"));
            }
        }
        self.list(level, "Annotations", &lines);
    }

    /// A title with a value per line.
    pub(super) fn list(&mut self, level: usize, title: &str, lines: &[String]) {
        if lines.is_empty() {
            return self.field(level, title, "");
        }
        for (position, line) in lines.iter().enumerate() {
            let title = if position == 0 {
                format!("{title}:")
            } else {
                String::new()
            };
            self.line(level, format!("{title}\t{line}"));
        }
    }

    pub(super) fn metadata(&mut self, object: &Value) {
        self.labels(0, "Labels", &object["metadata"]["labels"]);
        self.annotations(0, &object["metadata"]["annotations"]);
    }
}

/// The text of a value; numbers and flags as they are written.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The entries of a list, none for anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a map of texts.
pub(super) fn pairs(map: &Value) -> impl Iterator<Item = (String, String)> {
    map.as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
}

/// A time as `Mon, 02 Jan 2006 15:04:05 -0700` in the local time zone.
pub(super) fn time(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(String::new, |time| {
        time.to_zoned(jiff::tz::TimeZone::system())
            .strftime("%a, %d %b %Y %H:%M:%S %z")
            .to_string()
    })
}

/// `True` or `False`, as Go's titles have it.
pub(super) fn flag(value: &Value) -> &'static str {
    if value == true { "True" } else { "False" }
}

/// `a=b,c=d`, or a LabelSelector in the same form.
pub(super) fn selector(object: &Value) -> String {
    crate::pods::selector(object).unwrap_or_default()
}

/// `ReplicaSet/web-1`, of the owner that controls the object.
pub(super) fn controller(object: &Value) -> Option<String> {
    let owner = items(&object["metadata"]["ownerReferences"])
        .iter()
        .find(|owner| owner["controller"] == true)?;
    Some(format!("{}/{}", text(&owner["kind"]), text(&owner["name"])))
}
