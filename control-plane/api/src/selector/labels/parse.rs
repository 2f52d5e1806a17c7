//! The grammar of label selectors.

use super::Requirement;
use crate::names;

/// Reads requirements that are separated by commas.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens { rest: text };
    let mut found = Vec::new();
    if tokens.peek() == Token::End {
        return Ok(found);
    }
    loop {
        found.push(requirement(&mut tokens)?);
        match tokens.next() {
            Token::End => return Ok(found),
            Token::Sign(",") => {}
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'static str),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Word(text) => text,
            Self::Sign(text) => text,
            Self::End => "",
        })
    }
}

const SIGNS: [&str; 9] = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) {
            self.rest = &self.rest[sign.len()..];
            return Token::Sign(sign);
        }
        let is_end = |c: char| c.is_whitespace() || "!=(),<>".contains(c);
        let (word, rest) = self
            .rest
            .split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        if word.is_empty() {
            Token::End
        } else {
            Token::Word(word)
        }
    }

    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    if tokens.peek() == Token::Sign("!") {
        tokens.next();
        return Ok(Requirement::DoesNotExist { key: key(tokens)? });
    }
    let key = key(tokens)?;
    let operator = tokens.peek();
    if matches!(operator, Token::End | Token::Sign(",")) {
        return Ok(Requirement::Exists { key });
    }
    tokens.next();
    Ok(match operator {
        Token::Sign("=" | "==") => Requirement::Equals {
            key,
            value: value(tokens)?,
        },
        Token::Sign("!=") => Requirement::NotEquals {
            key,
            value: value(tokens)?,
        },
        Token::Sign(">") => Requirement::GreaterThan {
            key,
            value: number(tokens)?,
        },
        Token::Sign("<") => Requirement::LessThan {
            key,
            value: number(tokens)?,
        },
        Token::Word("in") => Requirement::In {
            key,
            values: values(tokens)?,
        },
        Token::Word("notin") => Requirement::NotIn {
            key,
            values: values(tokens)?,
        },
        other => {
            return Err(format!(
                "found '{other}', expected: in, notin, =, ==, !=, >, <, ',' or 'end of string'"
            ));
        }
    })
}

fn key(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.next() {
        Token::Word(key) => match names::qualified(key).into_iter().next() {
            None => Ok(key.to_owned()),
            Some(problem) => Err(format!("key: Invalid value: {key:?}: {problem}")),
        },
        other => Err(format!(
            "found '{other}', expected: !, identifier, or 'end of string'"
        )),
    }
}

fn value(tokens: &mut Tokens<'_>) -> Result<String, String> {
    let text = match tokens.peek() {
        Token::Word(text) => {
            tokens.next();
            text
        }
        Token::End | Token::Sign("," | ")") => "",
        other @ Token::Sign(_) => return Err(format!("found '{other}', expected: identifier")),
    };
    match names::label_value(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(problem) => Err(format!("values[0]: Invalid value: {text:?}: {problem}")),
    }
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, String> {
    let text = value(tokens)?;
    text.parse().map_err(|_| {
        format!("values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer")
    })
}

fn values(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    match tokens.next() {
        Token::Sign("(") => {}
        other => return Err(format!("found '{other}' expected: '('")),
    }
    let mut values = vec![value(tokens)?];
    loop {
        match tokens.next() {
            Token::Sign(")") => return Ok(values),
            Token::Sign(",") => values.push(value(tokens)?),
            other => return Err(format!("found '{other}', expected: ',' or ')'")),
        }
    }
}
