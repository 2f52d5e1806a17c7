//! Which user names and passwords fit which image, by kubelet's rules. Pure.
//!
//! A key such as `registry.example:5000/team` or `*.example` fits an image when the hosts match part by part (`*`
//! within a part), the ports are equal and the key's path begins the image's. All keys that fit are tried, the
//! longest path of a host first.

mod documents;

use std::collections::BTreeMap;
use std::fmt;

pub use documents::CredentialsError;
use documents::Document;
pub(crate) use documents::decode as decode_auth;

/// The type of a secret that holds a whole `config.json`.
const CONFIG_JSON_TYPE: &str = "kubernetes.io/dockerconfigjson";
const CONFIG_JSON_KEY: &str = ".dockerconfigjson";
/// The type of a secret that holds what is under `auths` only.
const CONFIG_TYPE: &str = "kubernetes.io/dockercfg";
const CONFIG_KEY: &str = ".dockercfg";
/// What credentials for docker.io are kept under.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// A user of a registry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Credential {
    /// The user's name; empty when there is only a token.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Instead of a password: an OAuth 2 refresh token.
    pub identity_token: Option<String>,
    /// Instead of both: sent to the registry as it is.
    pub registry_token: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets never reach a log.
        write!(formatter, "Credential({:?})", self.username)
    }
}

/// Credentials from secrets and files, and the images that they are for.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// For whatever is asked, before all others.
    given: Vec<Credential>,
    /// Keys from secrets are asked before those of the node.
    secrets: BTreeMap<String, Vec<Credential>>,
    node: BTreeMap<String, Vec<Credential>>,
}

impl Keyring {
    /// Takes in a secret of the pod or of its service account. Secrets of other types are passed over.
    pub fn add_secret<'a>(
        &mut self,
        kind: &str,
        data: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), CredentialsError> {
        let document = match kind {
            CONFIG_JSON_TYPE => data(CONFIG_JSON_KEY).map(Document::config_json),
            CONFIG_TYPE => data(CONFIG_KEY).map(Document::auths),
            _ => None,
        };
        if let Some(document) = document {
            add(&mut self.secrets, document?);
        }
        Ok(())
    }

    /// Takes in a `config.json` of the node.
    pub fn add_file(&mut self, json: &[u8]) -> Result<(), CredentialsError> {
        add(&mut self.node, Document::config_json(json)?);
        Ok(())
    }

    /// Takes in a user for every registry that is asked: the one that an operator names at the command line.
    pub fn add_for_all(&mut self, credential: Credential) {
        self.given.push(credential);
    }

    /// The credentials to try for a repository (`docker.io/library/nginx`), in order, each once.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let mut found = self.given.clone();
        for index in [&self.secrets, &self.node] {
            let fitting = index
                .iter()
                .rev()
                .filter(|(key, _)| fits(key, repository))
                .flat_map(|(_, credentials)| credentials);
            let default = if repository.starts_with("docker.io/") {
                index.get(DEFAULT_REGISTRY)
            } else {
                None
            };
            for credential in fitting.chain(default.into_iter().flatten()) {
                if !found.contains(credential) {
                    found.push(credential.clone());
                }
            }
        }
        found
    }
}

fn add(index: &mut BTreeMap<String, Vec<Credential>>, document: Document) {
    for (location, credential) in document.credentials {
        index.entry(key(&location)).or_default().push(credential);
    }
}

/// `https://host:port/v1/path/` → `host:port/path/`.
fn key(location: &str) -> String {
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = match path {
        "/" | "/v1" | "/v2" => "",
        _ => path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/v2"))
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path),
    };
    if path == "/" {
        host.to_owned()
    } else {
        format!("{host}{path}")
    }
}

fn fits(key: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let (pattern, pattern_port, pattern_path) = split(key);
    let (name, port, path) = split(repository);
    let parts = || pattern.split('.').zip(name.split('.'));
    pattern_port == port
        && path.starts_with(&pattern_path)
        && pattern.split('.').count() == name.split('.').count()
        && parts().all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// `*` is any run of characters, `?` any one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        ([b'?', pattern @ ..], [_, text @ ..]) => glob(pattern, text),
        ([one, pattern @ ..], [other, text @ ..]) if one == other => glob(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user names that are tried for a repository, when each key's user is named after the key.
    fn check(keys: &[&str], repository: &str, expected: &[&str]) {
        let auths: serde_json::Map<_, _> = keys
            .iter()
            .map(|key| {
                let auth = serde_json::json!({"username": key, "password": "x"});
                ((*key).to_owned(), auth)
            })
            .collect();
        let json = serde_json::json!({ "auths": auths }).to_string();
        let mut keyring = Keyring::default();
        keyring
            .add_secret(CONFIG_JSON_TYPE, |key| {
                (key == CONFIG_JSON_KEY).then_some(json.as_bytes())
            })
            .unwrap();
        let found = keyring.lookup(repository);
        let names: Vec<_> = found.iter().map(|found| found.username.as_str()).collect();
        assert_eq!(names, expected, "{keys:?} for {repository}");
    }

    #[test]
    fn hosts_match_part_by_part_and_ports_exactly() {
        check(
            &["registry.example"],
            "registry.example/a/b",
            &["registry.example"],
        );
        check(&["*.example"], "registry.example/a", &["*.example"]);
        check(&["*.example"], "a.registry.example/a", &[]);
        check(&["*.*.example"], "a.registry.example/a", &["*.*.example"]);
        check(&["reg*.example"], "registry.example/a", &["reg*.example"]);
        check(&["*"], "registry.example/a", &[]);
        check(&["registry.example"], "registry.example:5000/a", &[]);
        check(
            &["registry.example:5000"],
            "registry.example:5000/a",
            &["registry.example:5000"],
        );
        check(&["*:5000"], "localhost:5000/a", &["*:5000"]);
    }

    #[test]
    fn paths_are_prefixes_and_the_longest_is_tried_first() {
        let keys = [
            "r.example",
            "r.example/team",
            "r.example/team/app",
            "r.example/other",
        ];
        check(
            &keys,
            "r.example/team/app",
            &["r.example/team/app", "r.example/team", "r.example"],
        );
        check(&keys, "r.example/teams", &["r.example/team", "r.example"]);
        check(&keys, "r.example/x", &["r.example"]);
    }

    #[test]
    fn schemes_and_versions_in_keys_do_not_count() {
        for key in [
            "https://r.example/v1/",
            "http://r.example/v2",
            "r.example/",
            "https://r.example",
        ] {
            check(&[key], "r.example/a", &[key]);
        }
        check(
            &["https://r.example/v2/team"],
            "r.example/team/a",
            &["https://r.example/v2/team"],
        );
        check(&["r.example/v2team"], "r.example/team", &[]);
    }

    #[test]
    fn docker_hub_is_known_under_its_old_name() {
        let hub = "https://index.docker.io/v1/";
        check(&[hub], "docker.io/library/nginx", &[hub]);
        check(&["docker.io"], "docker.io/library/nginx", &["docker.io"]);
        check(&[hub], "r.example/library/nginx", &[]);
    }

    #[test]
    fn secrets_come_before_the_node_and_both_types_are_read() {
        let mut keyring = Keyring::default();
        let auth = |name: &str| format!(r#"{{"r.example":{{"username":"{name}","password":"x"}}}}"#);
        keyring
            .add_file(format!(r#"{{"auths":{}}}"#, auth("node")).as_bytes())
            .unwrap();
        let old = auth("old");
        keyring
            .add_secret(CONFIG_TYPE, |key| (key == CONFIG_KEY).then_some(old.as_bytes()))
            .unwrap();
        keyring.add_secret("Opaque", |_| Some(b"no json")).unwrap();
        keyring.add_secret(CONFIG_JSON_TYPE, |_| None).unwrap();
        assert!(
            keyring
                .add_secret(CONFIG_JSON_TYPE, |_| Some(b"no json"))
                .is_err()
        );
        assert_eq!(
            format!("{:?}", keyring.lookup("r.example/a")),
            r#"[Credential("old"), Credential("node")]"#
        );
    }
}
