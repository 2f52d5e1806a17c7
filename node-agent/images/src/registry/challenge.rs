//! What a registry answers who shows no or the wrong credentials: `WWW-Authenticate`. Pure.

use std::collections::BTreeMap;

/// One way in that a server names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// By lower-case name.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// The challenges of one header, in order. What cannot be understood is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return found;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            // A parameter before any scheme.
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    text.split_at(text.find(|letter| !is_token(letter)).unwrap_or(text.len()))
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[&str]) {
        let found: Vec<String> = parse(header)
            .into_iter()
            .map(|challenge| {
                let parameters = challenge
                    .parameters
                    .iter()
                    .map(|(name, value)| format!(" {name}={value}"));
                challenge.scheme + &parameters.collect::<String>()
            })
            .collect();
        assert_eq!(found, expected, "{header}");
    }

    #[test]
    fn challenges_are_told_apart_however_they_are_written() {
        check(r#"Basic realm="Registry Realm""#, &["basic realm=Registry Realm"]);
        check(
            r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
            &["bearer realm=https://auth.example/token scope=repository:a/b:pull,push service=r.example"],
        );
        check(
            r#"Basic realm="a, b" , BEARER Realm = "c\"d", service=e"#,
            &["basic realm=a, b", "bearer realm=c\"d service=e"],
        );
        check("Negotiate", &["negotiate"]);
        check("", &[]);
        check(r#"realm="x""#, &[]);
        check(r#"Bearer realm="unfinished"#, &["bearer realm=unfinished"]);
        check("Bearer realm=", &["bearer realm="]);
        check("\u{e9}", &[]);
    }
}
