//! Image references as people write them, brought to one normal form.

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// The reference is empty or longer than 512 bytes.
    #[error("invalid image reference {0:?}: it must have 1 to 512 characters")]
    Length(String),
    /// The repository has characters or an order of characters that no registry accepts.
    #[error("invalid image reference {0:?}: the repository must be lower-case path components")]
    Repository(String),
    /// The registry host is malformed.
    #[error("invalid image reference {0:?}: the registry is not a host name with an optional port")]
    Registry(String),
    /// The tag has more than 128 characters or characters outside `[A-Za-z0-9_.-]`.
    #[error("invalid image reference {0:?}: the tag is malformed")]
    Tag(String),
    /// The digest is not `sha256:` and 64 hexadecimal digits.
    #[error("invalid image reference {0:?}: the digest is not sha256 in lower-case hexadecimal")]
    Digest(String),
}

/// Completes a reference: `nginx` → `docker.io/library/nginx:latest`.
pub fn normalize(reference: &str) -> Result<String, ParseReferenceError> {
    let refuse = |error: fn(String) -> ParseReferenceError| error(reference.to_owned());
    if reference.is_empty() || reference.len() > 512 {
        return Err(refuse(ParseReferenceError::Length));
    }
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(refuse(ParseReferenceError::Digest));
    }
    let (name, tag) = split_tag(name);
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(refuse(ParseReferenceError::Tag));
    }
    let (registry, repository) = split_registry(name);
    if !is_registry(registry) {
        return Err(refuse(ParseReferenceError::Registry));
    }
    if !repository.split('/').all(is_component) {
        return Err(refuse(ParseReferenceError::Repository));
    }
    let library = if registry == "docker.io" && !repository.contains('/') {
        "library/"
    } else {
        ""
    };
    let mut normal = format!("{registry}/{library}{repository}");
    match (tag, digest) {
        (tag, Some(digest)) => {
            if let Some(tag) = tag {
                normal.push_str(&format!(":{tag}"));
            }
            normal.push_str(&format!("@{digest}"));
        }
        (tag, None) => normal.push_str(&format!(":{}", tag.unwrap_or("latest"))),
    }
    Ok(normal)
}

/// A normal reference, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// `docker.io`, `localhost:5000`.
    pub(crate) registry: &'a str,
    /// `library/nginx`.
    pub(crate) repository: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// *Assumes* what [`normalize`] gave.
    pub(crate) fn of(normal: &'a str) -> Self {
        let (name, digest) = match normal.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (normal, None),
        };
        let (name, tag) = split_tag(name);
        let (registry, repository) = split_registry(name);
        Self {
            registry,
            repository,
            tag,
            digest,
        }
    }
}

/// The repository of a normal reference, without tag and digest.
pub(crate) fn repository(normal: &str) -> &str {
    let name = normal.split_once('@').map_or(normal, |(name, _)| name);
    split_tag(name).0
}

/// The digest at the end of a reference, if it has one.
pub(crate) fn digest(normal: &str) -> Option<&str> {
    normal.split_once('@').map(|(_, digest)| digest)
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
        _ => (name, None),
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => ("docker.io", rest),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", name),
    }
}

pub(crate) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// `[a-z0-9]+` runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|&byte| alphanumeric(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, normal: &str) {
        match normalize(written) {
            Ok(found) => assert_eq!(found, normal),
            Err(error) => assert_eq!(format!("{error:?}").split('(').next(), Some(normal), "{written}"),
        }
    }

    #[test]
    fn references_are_completed_as_docker_does() {
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.25", "docker.io/library/nginx:1.25");
        check("bitnami/redis", "docker.io/bitnami/redis:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/app:v1", "localhost:5000/app:v1");
        check("flotilla.dev/demo:v1", "flotilla.dev/demo:v1");
        check(
            "registry.k8s.io/a/b_c/d__e/f--g:X_1.2-3",
            "registry.k8s.io/a/b_c/d__e/f--g:X_1.2-3",
        );
        let hex = "a".repeat(64);
        check(
            &format!("nginx@sha256:{hex}"),
            &format!("docker.io/library/nginx@sha256:{hex}"),
        );
        check(
            &format!("nginx:1@sha256:{hex}"),
            &format!("docker.io/library/nginx:1@sha256:{hex}"),
        );
    }

    #[test]
    fn malformed_references_are_refused() {
        check("", "Length");
        check(&"a".repeat(513), "Length");
        check("Nginx", "Repository");
        check("a//b", "Repository");
        check("../../etc", "Registry");
        check("a/../b", "Repository");
        check("a___b", "Repository");
        check("-a", "Repository");
        check("nginx:", "Tag");
        check("nginx:.x", "Tag");
        check(&format!("nginx:{}", "a".repeat(129)), "Tag");
        check("nginx@sha256:abc", "Digest");
        check("host:99999/app", "Registry");
        check("host-.dev/app", "Registry");
    }

    #[test]
    fn a_normal_reference_can_be_taken_apart() {
        let hex = "b".repeat(64);
        let normal = format!("localhost:5000/app:v1@sha256:{hex}");
        assert_eq!(repository(&normal), "localhost:5000/app");
        assert_eq!(digest(&normal), Some(format!("sha256:{hex}").as_str()));
        assert_eq!(repository("localhost:5000/app"), "localhost:5000/app");
        let parts = Parts::of(&normal);
        assert_eq!(
            (parts.registry, parts.repository, parts.tag),
            ("localhost:5000", "app", Some("v1"))
        );
        assert_eq!(parts.digest, digest(&normal));
        assert_eq!(Parts::of("docker.io/library/nginx:1").repository, "library/nginx");
    }
}
