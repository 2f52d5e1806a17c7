//! Something per path, found as the Ingress API finds paths. Pure.
//!
//! The longest path wins; of an exact path and a prefix that are equally long, the exact one.

use std::borrow::Cow;
use std::collections::HashMap;

/// How a path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathType {
    /// Exactly so.
    Exact,
    /// And everything below it, by whole elements.
    Prefix,
}

impl PathType {
    /// What is left to the implementation is a prefix here.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "Exact" => PathType::Exact,
            _ => PathType::Prefix,
        }
    }
}

/// Entries for paths.
#[derive(Debug)]
pub(crate) struct Paths<T> {
    exact: HashMap<Box<str>, T>,
    /// Without the slash at the end.
    prefixes: HashMap<Box<str>, T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            prefixes: HashMap::new(),
        }
    }
}

impl<T> Paths<T> {
    /// Adds an entry unless the same path has one.
    pub(crate) fn add(&mut self, path: &str, kind: PathType, make: impl FnOnce() -> T) {
        match kind {
            PathType::Exact => drop(self.exact.entry(path.into()).or_insert_with(make)),
            PathType::Prefix => {
                let prefix = path.strip_suffix('/').unwrap_or(path);
                self.prefixes.entry(prefix.into()).or_insert_with(make);
            }
        }
    }

    /// The entry for a [`plain`] path.
    pub(crate) fn get(&self, path: &str) -> Option<&T> {
        self.exact.get(path).or_else(|| self.longest_prefix(path))
    }

    fn longest_prefix(&self, path: &str) -> Option<&T> {
        let whole = path.strip_suffix('/').unwrap_or(path);
        let shorter = path.match_indices('/').rev().map(|(at, _)| &path[..at]);
        std::iter::once(whole)
            .chain(shorter)
            .find_map(|prefix| self.prefixes.get(prefix))
    }
}

/// The path that a request means: percent-encoded letters, digits, `-`, `.`, `_` and `~` stand for themselves, and `.`
/// and `..` are followed, so that nobody gets by a rule with another spelling.
pub(crate) fn plain(path: &str) -> Cow<'_, str> {
    let decoded = decoded(path);
    let has_dots = decoded.split('/').any(|element| matches!(element, "." | ".."));
    match has_dots {
        true => Cow::Owned(without_dots(&decoded)),
        false => decoded,
    }
}

fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let code = after.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code.map(char::from) {
            Some(letter) if letter.is_ascii_alphanumeric() || "-._~".contains(letter) => {
                plain.push(letter);
                rest = &after[2..];
            }
            _ => {
                plain.push('%');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// As in RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut elements = path.split('/').skip(1).peekable();
    while let Some(element) = elements.next() {
        let is_last = elements.peek().is_none();
        match element {
            "." | ".." => {
                if element == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &[(&str, PathType)], path: &str) -> String {
        let mut paths = Paths::default();
        for (rule, kind) in rules {
            paths.add(rule, *kind, || format!("{kind:?} {rule}"));
        }
        paths
            .get(&plain(path))
            .cloned()
            .unwrap_or_else(|| "none".to_owned())
    }

    /// The examples of the Kubernetes documentation.
    #[test]
    fn paths_match_as_kubernetes_says() {
        use PathType::{Exact, Prefix};
        for (rules, path, expected) in [
            (&[("/", Prefix)][..], "/any/path", "Prefix /"),
            (&[("/foo", Exact)], "/foo", "Exact /foo"),
            (&[("/foo", Exact)], "/bar", "none"),
            (&[("/foo", Exact)], "/foo/", "none"),
            (&[("/foo/", Exact)], "/foo", "none"),
            (&[("/foo", Prefix)], "/foo", "Prefix /foo"),
            (&[("/foo", Prefix)], "/foo/", "Prefix /foo"),
            (&[("/foo/", Prefix)], "/foo", "Prefix /foo/"),
            (&[("/foo/", Prefix)], "/foo/", "Prefix /foo/"),
            (&[("/aaa/bb", Prefix)], "/aaa/bbb", "none"),
            (&[("/aaa/bbb", Prefix)], "/aaa/bbb/ccc", "Prefix /aaa/bbb"),
            (&[("/aaa/bbb", Prefix)], "/aaa/bbbxyz", "none"),
            (&[("/", Prefix), ("/aaa", Prefix)], "/aaa/ccc", "Prefix /aaa"),
            (&[("/", Prefix), ("/aaa", Prefix)], "/ccc", "Prefix /"),
            (&[("/aaa", Prefix)], "/ccc", "none"),
            (&[("/foo", Prefix), ("/foo", Exact)], "/foo", "Exact /foo"),
            (&[("/foo/", Prefix), ("/foo", Exact)], "/foo", "Exact /foo"),
            (&[("/foo", Prefix), ("/foo", Exact)], "/foo/bar", "Prefix /foo"),
            (
                &[("/foo/bar", Prefix), ("/foo", Exact)],
                "/foo/bar",
                "Prefix /foo/bar",
            ),
            // Cases beyond the table.
            (&[("/foo", Prefix)], "/FOO", "none"),
            (&[("/foo", Prefix)], "/foo//bar", "Prefix /foo"),
            (&[("/", Prefix)], "/", "Prefix /"),
        ] {
            assert_eq!(found(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn the_first_of_two_equal_paths_stays() {
        let mut paths = Paths::default();
        paths.add("/a", PathType::Prefix, || 1);
        paths.add("/a/", PathType::Prefix, || 2);
        assert_eq!(paths.get("/a/b"), Some(&1));
    }

    #[test]
    fn another_spelling_of_a_path_is_the_same_path() {
        for (path, expected) in [
            ("/foo", "/foo"),
            ("/%66oo%2Fbar", "/foo%2Fbar"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2E/admin/", "/admin/"),
            ("/../../a", "/a"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/a//b", "/a//b"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%é", "/%é"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }
}
