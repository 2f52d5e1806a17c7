//! Reads templates and paths.

use serde_json::Value;

use super::{Comparison, Filter, Operand, Part, Path, Step};

type Parsed<T> = Result<T, String>;

/// Reads text with `{…}` actions.
pub(super) fn template(source: &str) -> Parsed<Vec<Part>> {
    // The innermost open range is last; the bottom entry is the template itself.
    let mut open: Vec<(Option<Path>, Vec<Part>)> = vec![(None, Vec::new())];
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        push_text(&mut open, &rest[..start]);
        let mut scanner = Scanner {
            rest: &rest[start + 1..],
        };
        actions(&mut scanner, &mut open)?;
        rest = scanner.rest;
    }
    push_text(&mut open, rest);
    match open.pop() {
        Some((None, parts)) => Ok(parts),
        _ => Err("unclosed range: add {end}".to_owned()),
    }
}

/// Reads one path, braces and first dot being optional.
pub(super) fn relaxed(source: &str) -> Parsed<Path> {
    let trimmed = source.trim();
    let inner = trimmed
        .strip_prefix('{')
        .and_then(|inner| inner.strip_suffix('}'))
        .unwrap_or(trimmed);
    let dotted = if inner.starts_with(['.', '[', '$', '@']) {
        inner.to_owned()
    } else {
        format!(".{inner}")
    };
    let mut scanner = Scanner { rest: &dotted };
    let path = scanner.path()?;
    if scanner.rest.is_empty() {
        Ok(path)
    } else {
        Err(format!("unexpected {:?}; want {{.a.b}} or .a.b", scanner.rest))
    }
}

fn push_text(open: &mut [(Option<Path>, Vec<Part>)], text: &str) {
    if let (false, Some((_, parts))) = (text.is_empty(), open.last_mut()) {
        parts.push(Part::Text(text.to_owned()));
    }
}

/// Reads up to the closing brace.
fn actions(scanner: &mut Scanner<'_>, open: &mut Vec<(Option<Path>, Vec<Part>)>) -> Parsed<()> {
    loop {
        scanner.skip_spaces();
        if scanner.eat("}") {
            return Ok(());
        }
        if scanner.rest.is_empty() {
            return Err("unclosed action".to_owned());
        }
        if scanner.eat_word("range") {
            scanner.skip_spaces();
            open.push((Some(scanner.path()?), Vec::new()));
        } else if scanner.eat_word("end") {
            close_range(open)?;
        } else if scanner.rest.starts_with(['"', '\'']) {
            let text = scanner.quoted()?;
            push_text(open, &text);
        } else {
            let path = scanner.path()?;
            if let Some((_, parts)) = open.last_mut() {
                parts.push(Part::Print(path));
            }
        }
    }
}

fn close_range(open: &mut Vec<(Option<Path>, Vec<Part>)>) -> Parsed<()> {
    let not_in_range = || "not in range: {end} without {range}".to_owned();
    let (over, body) = open.pop().ok_or_else(not_in_range)?;
    let over = over.ok_or_else(not_in_range)?;
    let (_, parts) = open.last_mut().ok_or_else(not_in_range)?;
    parts.push(Part::Range { over, body });
    Ok(())
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let follows = |rest: &str| rest.is_empty() || rest.starts_with([' ', '}', '\t', '\n']);
        self.rest.strip_prefix(word).is_some_and(follows) && self.eat(word)
    }

    fn quoted(&mut self) -> Parsed<String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(text);
            }
            text.push(match c {
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(other) => other,
                    None => break,
                },
                c => c,
            });
        }
        Err("unterminated quoted string".to_owned())
    }

    fn path(&mut self) -> Parsed<Path> {
        let before = self.rest;
        let from_root = self.eat("$");
        if !from_root {
            self.eat("@");
        }
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with('[') {
                    steps.push(self.field_or_wildcard());
                }
            } else if self.eat(".") {
                if self
                    .rest
                    .starts_with(|c: char| c == '[' || c == '}' || c.is_whitespace())
                    || self.rest.is_empty()
                {
                    continue;
                }
                steps.push(self.field_or_wildcard());
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if self.rest.len() == before.len() {
                // kubectl takes a bare word for a field: `{metadata.name}`.
                match self.field_or_wildcard() {
                    Step::Field(name) if name.is_empty() => {
                        let found = self.rest.chars().next().unwrap_or(' ');
                        return Err(format!("unrecognized character in action: {found:?}"));
                    }
                    step => steps.push(step),
                }
            } else {
                return Ok(Path { from_root, steps });
            }
        }
    }

    fn field_or_wildcard(&mut self) -> Step {
        if self.eat("*") {
            return Step::Wildcard;
        }
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                c if c.is_whitespace() || ".[]{}()=!<>,|&\"'".contains(c) => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        Step::Field(name)
    }

    fn bracket(&mut self) -> Parsed<Step> {
        self.skip_spaces();
        if self.eat("?(") {
            let filter = self.filter()?;
            self.close("]")?;
            return Ok(Step::Filter(Box::new(filter)));
        }
        if self.eat("*") {
            self.close("]")?;
            return Ok(Step::Wildcard);
        }
        if self.rest.starts_with(['"', '\'']) {
            let mut names = vec![self.quoted()?];
            self.skip_spaces();
            while self.eat(",") {
                self.skip_spaces();
                names.push(self.quoted()?);
                self.skip_spaces();
            }
            self.close("]")?;
            return Ok(Step::Fields(names));
        }
        let end = self.rest.find(']').ok_or("unterminated array")?;
        let inside = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        numbers(inside)
    }

    fn close(&mut self, token: &str) -> Parsed<()> {
        self.skip_spaces();
        if self.eat(token) {
            Ok(())
        } else {
            Err("unterminated array".to_owned())
        }
    }

    fn filter(&mut self) -> Parsed<Filter> {
        let left = self.operand()?;
        self.skip_spaces();
        const COMPARISONS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let found = COMPARISONS.into_iter().find(|(token, _)| self.eat(token));
        let filter = match found {
            Some((_, comparison)) => Filter::Compare(left, comparison, self.operand()?),
            None => Filter::Exists(left),
        };
        self.skip_spaces();
        if self.eat(")") {
            Ok(filter)
        } else {
            Err("unterminated filter".to_owned())
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.skip_spaces();
        if self.rest.starts_with(['"', '\'']) {
            return Ok(Operand::Literal(Value::String(self.quoted()?)));
        }
        if self.rest.starts_with(['@', '.', '$']) {
            return self.path().map(Operand::Path);
        }
        let end = self
            .rest
            .find([' ', ')', '=', '!', '<', '>'])
            .unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        serde_json::from_str(word)
            .map(Operand::Literal)
            .map_err(|_| format!("unrecognized value {word:?} in a filter: quote text"))
    }
}

fn numbers(inside: &str) -> Parsed<Step> {
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| format!("invalid array index {}", text.trim()))
    };
    let optional = |text: Option<&&str>| match text.map(|text| text.trim()) {
        None | Some("") => Ok(None),
        Some(text) => number(text).map(Some),
    };
    if inside.contains(':') {
        let parts: Vec<&str> = inside.split(':').collect();
        let step = optional(parts.get(2))?.unwrap_or(1);
        if step < 1 {
            return Err("step must be > 0".to_owned());
        }
        return Ok(Step::Slice {
            from: optional(parts.first())?,
            to: optional(parts.get(1))?,
            step,
        });
    }
    inside
        .split(',')
        .map(number)
        .collect::<Parsed<Vec<i64>>>()
        .map(Step::Indices)
}
