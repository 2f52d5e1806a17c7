//! What the words of `cp` mean. Pure.

use anyhow::bail;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local(String),
    Remote(Remote),
}

/// A path in a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) namespace: Option<String>,
    pub(super) pod: String,
    pub(super) path: String,
}

/// Reads `PATH` or `[NAMESPACE/]POD:PATH`; a local path with a colon is written with `./` before it.
pub(super) fn parse(word: &str) -> anyhow::Result<Place> {
    let Some((pod, path)) = word.split_once(':') else {
        return Ok(Place::Local(word.to_owned()));
    };
    if pod.starts_with(['/', '.']) {
        return Ok(Place::Local(word.to_owned()));
    }
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
        None => (None, pod),
    };
    if pod.is_empty() || pod.contains('/') || namespace.as_deref() == Some("") || path.is_empty() {
        bail!("filespec {word} must match the canonical format: [[namespace/]pod:]file/path");
    }
    Ok(Place::Remote(Remote {
        namespace,
        pod: pod.to_owned(),
        path: path.to_owned(),
    }))
}

/// The path without a slash at its end, without `.` parts, and without `..` where that leads nowhere new.
pub(super) fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            ("..", None) if is_absolute => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The folder and the name of a clean path.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => (".", path),
    }
}

/// Into which remote folder `name` goes, and as what, when it is copied to `to`.
///
/// As with every `cp`: into a folder that exists, else under the name that is given. A slash at the end asks for a
/// folder.
pub(super) fn target(to: &str, name: &str, is_folder: bool, source_is_folder: bool) -> (String, String) {
    let path = clean(to);
    if is_folder || (to.ends_with('/') && !source_is_folder) {
        return (path, name.to_owned());
    }
    let (folder, name) = split(&path);
    (folder.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn remote(word: &str, expected: (Option<&str>, &str, &str)) {
        let Place::Remote(found) = parse(word).unwrap() else {
            panic!("{word} is local");
        };
        let found = (
            found.namespace.as_deref(),
            found.pod.as_str(),
            found.path.as_str(),
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn places_are_read() {
        remote("web:/tmp/a", (None, "web", "/tmp/a"));
        remote("prod/web:a:b", (Some("prod"), "web", "a:b"));
        for local in ["a", "/tmp/a:b", "./a:b", "../a:b"] {
            assert_eq!(parse(local).unwrap(), Place::Local(local.to_owned()));
        }
        for wrong in [":a", "web:", "/web:", "a/b/c:d"] {
            let refused = parse(wrong);
            assert!(
                refused.is_err() || matches!(refused, Ok(Place::Local(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/a//b/./c/", "/a/b/c"),
            ("a/../b", "b"),
            ("/../../etc", "/etc"),
            ("../a", "../a"),
            ("./", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected);
        }
        assert_eq!(split("/a"), ("/", "a"));
        assert_eq!(split("a/b"), ("a", "b"));
        assert_eq!(split("a"), (".", "a"));
    }

    #[test]
    fn copies_go_into_folders_that_exist() {
        let target = |to, is_folder| target(to, "file", is_folder, false);
        assert_eq!(target("/tmp", true), ("/tmp".into(), "file".into()));
        assert_eq!(target("/tmp/new", false), ("/tmp".into(), "new".into()));
        assert_eq!(target("/tmp/new/", false), ("/tmp/new".into(), "file".into()));
        assert_eq!(target("new", false), (".".into(), "new".into()));
    }
}
