//! YAML as kubectl prints it: sorted keys, lists at their key's column, Go's choice of quotes.
//!
//! Pure. serde_yaml's emitter chooses other quotes (`'1'` for `"1"`, bare time stamps), and scripts
//! and eyes are used to kubectl's.

use serde_json::Value;

/// One document, with a line break at its end.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        scalar => {
            out.push_str(&inline(scalar, 0));
            out.push('\n');
        }
    }
    out
}

fn write_map(out: &mut String, value: &Value, indent: usize) {
    let Value::Object(map) = value else { return };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for (position, key) in keys.into_iter().enumerate() {
        // The first key of a map inside a list stands behind the dash.
        if position > 0 || !out.ends_with("- ") {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&scalar(key, indent));
        out.push(':');
        write_value(out, &map[key], indent);
    }
}

fn write_value(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(out, value, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_list(out, items, indent);
        }
        scalar => {
            out.push(' ');
            out.push_str(&inline(scalar, indent + 2));
            out.push('\n');
        }
    }
}

fn write_list(out: &mut String, items: &[Value], indent: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 || !out.ends_with("- ") {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, item, indent + 2),
            Value::Array(inner) if !inner.is_empty() => write_list(out, inner, indent + 2),
            scalar => {
                out.push_str(&inline(scalar, indent + 2));
                out.push('\n');
            }
        }
    }
}

fn inline(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text, indent),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

fn scalar(text: &str, indent: usize) -> String {
    if text.contains('\n') && block_allowed(text) {
        return literal(text, indent);
    }
    if needs_double_quotes(text) {
        return double_quoted(text);
    }
    if plain_allowed(text) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Multi-line text is shown as a block unless that would lose something.
fn block_allowed(text: &str) -> bool {
    let unprintable = |c: char| c.is_control() && c != '\n' && c != '\t';
    !text.contains(unprintable) && !text.contains(" \n") && !text.ends_with(' ') && !text.starts_with(' ')
}

fn literal(text: &str, indent: usize) -> String {
    let chomping = match (text.ends_with('\n'), text.ends_with("\n\n") || text == "\n") {
        (false, _) => "-",
        (true, false) => "",
        (true, true) => "+",
    };
    let hint = if text.starts_with('\n') { "2" } else { "" };
    let padding = " ".repeat(indent);
    let mut out = format!("|{hint}{chomping}");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&padding);
            out.push_str(line);
        }
    }
    out
}

/// What a YAML reader would take for something else than text, and what only escapes can say.
fn needs_double_quotes(text: &str) -> bool {
    const WORDS: [&str; 13] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "=",
    ];
    let lower = text.to_lowercase();
    WORDS.contains(&lower.as_str())
        || text.contains(char::is_control)
        || looks_like_number(&lower)
        || looks_like_time(text)
}

fn looks_like_number(lower: &str) -> bool {
    let digits = lower.trim_start_matches(['+', '-']).replace('_', "");
    let radix = |prefix, radix| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0b", 2) || radix("0o", 8) || matches!(digits.as_str(), ".inf" | ".nan") {
        return true;
    }
    let starts = digits.starts_with(|c: char| c.is_ascii_digit())
        || digits
            .strip_prefix('.')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let base_60 = digits.contains(':') && digits.split(':').all(|part| part.parse::<f64>().is_ok());
    starts && (digits.parse::<f64>().is_ok() || base_60)
}

fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || "-:TtZz.+ ".contains(c))
}

fn plain_allowed(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next();
    if ",[]{}#&*!|>'\"%@`".contains(first) || text.starts_with(' ') || text.ends_with(' ') {
        return false;
    }
    if "-?:".contains(first) && second.is_none_or(|c| c == ' ') {
        return false;
    }
    !(text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with("---")
        || text.starts_with("..."))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{1b}' => out.push_str("\\e"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::to_yaml;

    #[test]
    fn quotes_indents_and_blocks_are_those_of_kubectl() {
        let value = json!({
            "metadata": {"name": "web", "annotations": {"a/b": "1", "c": "true", "d": ""}, "creationTimestamp": "2026-11-21T09:00:00Z"},
            "spec": {"list": [{"name": "x", "args": ["-c", "echo: hi", "*"]}, [1, 2], {}], "none": [], "nil": null},
            "data": {"conf": "a: b\n  c\n", "open": "x\ny"},
        });
        expect![[r#"
            data:
              conf: |
                a: b
                  c
              open: |-
                x
                y
            metadata:
              annotations:
                a/b: "1"
                c: "true"
                d: ""
              creationTimestamp: "2026-11-21T09:00:00Z"
              name: web
            spec:
              list:
              - args:
                - -c
                - 'echo: hi'
                - '*'
                name: x
              - - 1
                - 2
              - {}
              nil: null
              none: []
        "#]]
        .assert_eq(&to_yaml(&value));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for text in [
            "a",
            "007",
            "0x1f",
            "1e3",
            "12:30",
            "-",
            "- x",
            "x: y",
            "# no",
            "tab\there",
            "a\n\n",
            "\nb",
            "é",
            "'",
            "\"",
            "v1.2",
            "2026-01-01",
            "1_000",
            ".5",
            "null",
        ] {
            let value = json!({"k": text});
            let back: serde_json::Value = serde_yaml::from_str(&to_yaml(&value)).unwrap();
            assert_eq!(back, value, "{}", to_yaml(&value));
        }
    }
}
