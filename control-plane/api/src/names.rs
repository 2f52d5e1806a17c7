//! What names, labels and keys may look like, in Kubernetes' wording.

/// Says what is wrong with a name; nothing when it is right.
pub(crate) type NameRule = fn(&str) -> Vec<String>;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether `text` starts and ends with an `edge` and has only `edge`s and `inner`s between.
fn framed(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    edge(*first) && edge(*last) && bytes.iter().all(|byte| edge(*byte) || inner.contains(byte))
}

fn check(text: &str, bytes_max: usize, is_right: bool, message: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > bytes_max {
        problems.push(format!("must be no more than {bytes_max} bytes"));
    }
    if !is_right {
        problems.push(message.to_owned());
    }
    problems
}

/// A DNS-1123 label, like a namespace's name.
pub(crate) fn label(name: &str) -> Vec<String> {
    check(name, 63, framed(name, is_lower, b"-"), LABEL)
}

/// A DNS-1123 subdomain, like most names.
pub(crate) fn subdomain(name: &str) -> Vec<String> {
    let is_right = name.split('.').all(|part| framed(part, is_lower, b"-"));
    check(name, 253, is_right, SUBDOMAIN)
}

/// A DNS-1035 label, like a service's name.
pub(crate) fn label_1035(name: &str) -> Vec<String> {
    let starts_right = name.starts_with(|first: char| first.is_ascii_lowercase());
    check(name, 63, starts_right && framed(name, is_lower, b"-"), LABEL_1035)
}

/// A name with an optional domain before a slash, like a label's key.
pub(crate) fn qualified(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            problems.extend(
                subdomain(prefix)
                    .into_iter()
                    .map(|problem| format!("prefix part {problem}")),
            );
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    let is_right = framed(name, |byte| byte.is_ascii_alphanumeric(), b"-_.");
    problems.extend(
        check(name, 63, is_right, QUALIFIED)
            .into_iter()
            .map(|one| format!("name part {one}")),
    );
    problems
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Vec<String> {
    let is_right = value.is_empty() || framed(value, |byte| byte.is_ascii_alphanumeric(), b"-_.");
    check(value, 63, is_right, LABEL_VALUE)
}

/// The key of a config map or secret.
pub(crate) fn config_key(key: &str) -> Vec<String> {
    let is_right = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let mut problems = check(key, 253, is_right, CONFIG_KEY);
    match key {
        "." | ".." => problems.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable.
pub(crate) fn env_name(name: &str) -> Vec<String> {
    let is_right = !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    check(name, usize::MAX, is_right, ENV_NAME)
}

/// The name of a port, an IANA service name.
pub(crate) fn port_name(name: &str) -> Vec<String> {
    let is_made_of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let rules = [
        (name.len() <= 15, "must be no more than 15 characters"),
        (
            name.bytes().all(is_made_of),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            name.bytes().any(|byte| byte.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (!name.contains("--"), "must not contain consecutive hyphens"),
        (
            !name.starts_with('-') && !name.ends_with('-'),
            "must not begin or end with a hyphen",
        ),
    ];
    rules
        .iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, message)| (*message).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for (rule, names) in [
            (label as NameRule, vec!["a", "web-1", "0"]),
            (subdomain, vec!["a.b-c.d", "web", "10.0.0.1"]),
            (label_1035, vec!["web-1"]),
            (qualified, vec!["app", "app.kubernetes.io/name", "a_B.c-9"]),
            (label_value, vec!["", "v1", "A_b.c"]),
            (config_key, vec!["a", ".hidden", "key_A.txt"]),
            (env_name, vec!["PATH", "a.b-c", "with space"]),
            (port_name, vec!["http", "p-1"]),
        ] {
            for name in names {
                assert_eq!(rule(name), Vec::<String>::new(), "{name:?}");
            }
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(64);
        for (rule, names) in [
            (label as NameRule, vec!["", "A", "-a", "a-", "a.b", &long]),
            (subdomain, vec!["", "A", "a..b", ".a", "a_b", "a.-b"]),
            (label_1035, vec!["1a", ""]),
            (qualified, vec!["", "/a", "a/", "a/b/c", "a b", "-a", "A/b"]),
            (label_value, vec!["-", "a b", &long]),
            (config_key, vec!["", ".", "..", "..a", "a/b"]),
            (env_name, vec!["", "a=b", "ü"]),
            (
                port_name,
                vec!["", "HTTP", "80", "a--b", "-a", "abcdefghijklmnop"],
            ),
        ] {
            for name in names {
                assert_ne!(rule(name), Vec::<String>::new(), "{name:?}");
            }
        }
    }
}
