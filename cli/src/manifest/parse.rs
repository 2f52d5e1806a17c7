//! From YAML or JSON text to documents, and from a parser's complaint to one that helps.
//!
//! Pure.

use serde::Deserialize as _;
use serde_json::Value;

use super::positions::Node;
use super::{Document, Problem};

/// What a Kubernetes server takes as one object.
const OBJECT_BYTES_MAX: usize = 3 << 20;
/// Maps and lists within each other, as much as a server's parser takes.
const DEPTH_MAX: usize = 100;

/// Reads all documents of a text; those without content are left out, lists are taken apart.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Document>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for (lines_before, part) in split(text) {
        let mut document = Document {
            file: file.to_owned(),
            value: Value::Null,
            text: part.to_owned(),
            lines_before,
            positions: None,
        };
        if part.len() > OBJECT_BYTES_MAX {
            #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
            let mebibytes = part.len() as f64 / f64::from(1 << 20);
            let message = format!(
                "this document has {mebibytes:.1} MiB; a server takes objects of up to {} MiB: separate objects by ---, \
                 and keep large files out of ConfigMaps and Secrets",
                OBJECT_BYTES_MAX >> 20
            );
            return Err(Problem {
                excerpt: String::new(),
                ..document.problem_at(1, 1, message)
            });
        }
        document.value = value(&mut document)?;
        match document.value {
            Value::Null => {}
            Value::Object(_) => documents.extend(take_apart(document)),
            _ => {
                let message =
                    "a manifest is a map of fields such as `apiVersion: v1`, this is something else"
                        .to_owned();
                return Err(document.problem(&[], message));
            }
        }
    }
    if documents.is_empty() {
        return Err(Problem {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: "there is no object in it: a manifest has apiVersion, kind and metadata".to_owned(),
            excerpt: String::new(),
        });
    }
    Ok(documents)
}

/// Splits at lines that begin with `---`, as kubectl does.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_separator && offset > start {
            parts.push((start_line, &text[start..offset]));
            start = offset;
            start_line = line_number;
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

fn value(document: &mut Document) -> Result<Value, Problem> {
    if let Some((line, column)) = too_deep(&document.text) {
        let message = format!("more than {DEPTH_MAX} brackets within each other; no object is that deep");
        return Err(Problem {
            excerpt: String::new(),
            ..document.problem_at(line, column, message)
        });
    }
    let mut yaml = serde_yaml::Deserializer::from_str(&document.text);
    let parsed = match yaml.next() {
        Some(yaml) => serde_yaml::Value::deserialize(yaml),
        None => return Ok(Value::Null),
    };
    document.positions = Node::parse(&document.text);
    if let Some(duplicate) = document.positions.as_ref().and_then(Node::first_duplicate) {
        let message = format!(
            "\"{}\" is given twice in one map, first in line {}: remove one",
            duplicate.key,
            duplicate.first_line + document.lines_before
        );
        return Err(document.problem_at(duplicate.line, duplicate.column, message));
    }
    let mut parsed = parsed.map_err(|error| explain(document, &error))?;
    parsed.apply_merge().map_err(|error| explain(document, &error))?;
    to_json(parsed).map_err(|message| document.problem(&[], message))
}

/// Flow collections can nest deeply in few bytes; parsers recurse.
fn too_deep(text: &str) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    let (mut line, mut column) = (1, 1);
    for c in text.chars() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            '\n' => (line, column) = (line + 1, 0),
            _ => {}
        }
        // Brackets inside text count as well, but no sensible text opens this many.
        if depth > 10 * DEPTH_MAX {
            return Some((line, column));
        }
        column += 1;
    }
    None
}

fn to_json(value: serde_yaml::Value) -> Result<Value, String> {
    Ok(match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(flag) => Value::Bool(flag),
        serde_yaml::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (_, Some(number), _) => number.into(),
            (.., Some(number)) if number.is_finite() => number.into(),
            _ => return Err(format!("{number} has no form in JSON: quote it if it is text")),
        },
        serde_yaml::Value::String(text) => Value::String(text),
        serde_yaml::Value::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        serde_yaml::Value::Mapping(map) => {
            let pair = |(key, value)| {
                let key = key_text(key)?;
                let value =
                    octal_mode(&key, &value).map_or_else(|| to_json(value), |mode| Ok(mode.into()))?;
                Ok((key, value))
            };
            Value::Object(map.into_iter().map(pair).collect::<Result<_, String>>()?)
        }
        serde_yaml::Value::Tagged(tagged) => {
            return Err(format!(
                "the tag {} has no meaning in a manifest: remove it",
                tagged.tag
            ));
        }
    })
}

/// The mode of a file as kubectl reads it: `0644` is octal to it, while YAML 1.2 takes it for text.
fn octal_mode(key: &str, value: &serde_yaml::Value) -> Option<u32> {
    let text = value.as_str().filter(|_| matches!(key, "mode" | "defaultMode"))?;
    let digits = text.strip_prefix('0').filter(|digits| !digits.starts_with('o'))?;
    u32::from_str_radix(digits, 8).ok()
}

fn key_text(key: serde_yaml::Value) -> Result<String, String> {
    match key {
        serde_yaml::Value::String(text) => Ok(text),
        serde_yaml::Value::Bool(flag) => Ok(flag.to_string()),
        serde_yaml::Value::Number(number) => Ok(number.to_string()),
        _ => Err("a key of a map has to be text".to_owned()),
    }
}

/// A `List` stands for its items.
fn take_apart(mut document: Document) -> Vec<Document> {
    let is_list = document.value["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    match document.value["items"].take() {
        Value::Array(items) if is_list => {
            let list = &document;
            items
                .into_iter()
                .map(|value| Document {
                    value,
                    positions: None,
                    ..list.clone()
                })
                .collect()
        }
        Value::Null => {
            if let Some(fields) = document.value.as_object_mut() {
                fields.retain(|key, value| key != "items" || !value.is_null());
            }
            vec![document]
        }
        items => {
            document.value["items"] = items;
            vec![document]
        }
    }
}

fn explain(document: &Document, error: &serde_yaml::Error) -> Problem {
    let (line, column) = error
        .location()
        .map_or((1, 1), |location| (location.line(), location.column()));
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    let source_line = document
        .text
        .lines()
        .nth(line.saturating_sub(1))
        .unwrap_or_default();
    let indent = &source_line[..source_line.len() - source_line.trim_start().len()];
    if let Some(tab) = indent.find('\t') {
        let message = "a tab indents this line; YAML wants spaces: replace it".to_owned();
        return document.problem_at(line, tab + 1, message);
    }
    let message = if what.contains("repetition limit") {
        "the aliases (*name) of this document expand to too much: write the values out".to_owned()
    } else if what.contains("recursion limit") {
        "this nests too deep for an object".to_owned()
    } else if what.contains("mapping values are not allowed") {
        format!("{what}: check the indentation, and quote text that has \": \" in it")
    } else if what.contains("',' or") {
        format!("{what}: close the bracket that was opened before")
    } else if what.contains("did not find expected") || what.contains("could not find expected") {
        format!("{what}: check the indentation of this line and the one before")
    } else {
        match text
            .split(", while ")
            .nth(1)
            .and_then(|doing| doing.split_once(" at line "))
        {
            Some((doing, place)) => {
                let begin = place
                    .split(' ')
                    .next()
                    .and_then(|line| line.parse::<usize>().ok())
                    .unwrap_or(line);
                format!(
                    "{what}, while {doing} that begins in line {}",
                    begin + document.lines_before
                )
            }
            None => what.to_owned(),
        }
    };
    document.problem_at(line, column, message)
}

/// The line and the one before it, with a caret.
pub(super) fn excerpt(text: &str, line: usize, column: usize, lines_before: usize) -> String {
    const WIDTH_MAX: usize = 120;
    let mut out = Vec::new();
    let width = (line + lines_before).to_string().len();
    let shown = |number: usize| text.lines().nth(number.checked_sub(1)?);
    for number in [line.saturating_sub(1), line] {
        if let Some(source) = shown(number) {
            let cut: String = source.chars().take(WIDTH_MAX).collect();
            out.push(format!(
                "  {:>width$} | {}",
                number + lines_before,
                cut.replace('\t', "→")
            ));
        }
    }
    if shown(line).is_none() || column > WIDTH_MAX {
        return out.join("\n");
    }
    out.push(format!(
        "  {:>width$} | {}^",
        "",
        " ".repeat(column.saturating_sub(1))
    ));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let shown = match parse("web.yaml", text) {
            Ok(documents) => documents
                .iter()
                .map(|document| format!("{}\n", document.value))
                .collect(),
            Err(problem) => problem.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn documents_and_lists_are_taken_apart() {
        check(
            "# nothing\n---\na: 1\n---\n---\nkind: List\nitems:\n- b: yes\n- {c: 2, 3: x}\n...\n",
            expect![[r#"
                {"a":1}
                {"b":"yes"}
                {"3":"x","c":2}
            "#]],
        );
        check(
            "{\"a\": [1, true, null]}",
            expect![[r#"
            {"a":[1,true,null]}
        "#]],
        );
        check(
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            expect![[r#"
            {"a":{"b":1},"c":{"b":1}}
        "#]],
        );
    }

    #[test]
    fn modes_of_files_are_octal_as_in_kubectl() {
        check(
            "defaultMode: 0755\nitems: [{mode: 0400}, {mode: 256}, {mode: 0o600}]\nname: 0755\nmode: 0999\n",
            expect![[r#"
                {"defaultMode":493,"items":[{"mode":256},{"mode":256},{"mode":384}],"mode":"0999","name":"0755"}
            "#]],
        );
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        check(
            "a: 1\n---\nmetadata:\n  name: web\n   labels: x\n",
            expect![[r#"
            web.yaml:5:10: mapping values are not allowed in this context: check the indentation, and quote text that has ": " in it
              4 |   name: web
              5 |    labels: x
                |          ^"#]],
        );
        check(
            "a:\n\tb: 1\n",
            expect![[r#"
            web.yaml:2:1: a tab indents this line; YAML wants spaces: replace it
              1 | a:
              2 | →b: 1
                | ^"#]],
        );
        check(
            "a: [1, 2\nb: 3\n",
            expect![[r#"
                web.yaml:2:2: did not find expected ',' or ']': close the bracket that was opened before
                  1 | a: [1, 2
                  2 | b: 3
                    |  ^"#]],
        );
        check(
            "a:\n  b: 1\n  b: 2\n",
            expect![[r#"
            web.yaml:3:3: "b" is given twice in one map, first in line 2: remove one
              2 |   b: 1
              3 |   b: 2
                |   ^"#]],
        );
        check(
            "- a\n- b\n",
            expect![[r#"
            web.yaml:1:1: a manifest is a map of fields such as `apiVersion: v1`, this is something else
              1 | - a
                | ^"#]],
        );
        check(
            "# only a comment\n",
            expect!["web.yaml:1:1: there is no object in it: a manifest has apiVersion, kind and metadata"],
        );
        check(
            "a: \"open\n",
            expect![[r#"
                web.yaml:2:1: found unexpected end of stream, while scanning a quoted scalar that begins in line 1
                  1 | a: "open"#]],
        );
        check(
            "a: *nowhere\n",
            expect![[r#"
            web.yaml:1:4: unknown anchor
              1 | a: *nowhere
                |    ^"#]],
        );
        check(
            "a: !thing 1\n",
            expect![[r#"
            web.yaml:1:1: the tag !thing has no meaning in a manifest: remove it
              1 | a: !thing 1
                | ^"#]],
        );
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, before) in ('b'..='k').zip('a'..='j') {
            bomb.push_str(&format!(
                "{name}: &{name} [{}*{before}]\n",
                format!("*{before},").repeat(8)
            ));
        }
        let problem = parse("bomb.yaml", &bomb).unwrap_err();
        assert!(problem.message.contains("expand to too much"), "{problem}");
        let large = format!("a: {}\n", "x".repeat(4 << 20));
        let problem = parse("large.yaml", &large).unwrap_err();
        expect!["this document has 4.0 MiB; a server takes objects of up to 3 MiB: separate objects by ---, and keep large files out of ConfigMaps and Secrets"]
            .assert_eq(&problem.message);
        let deep = "[".repeat(1 << 20);
        assert!(parse("deep.yaml", &deep).is_err());
        let deep = format!("a: {}1{}", "[".repeat(500), "]".repeat(500));
        assert!(parse("deep.yaml", &deep).is_err());
    }
}
