//! `registries.yaml`: mirrors, credentials and certificates of registries, in the format that k3s made known.
//!
//! ```yaml
//! mirrors:
//!   docker.io:
//!     endpoint: ["https://mirror.example:5000"]
//!     rewrite: {"^library/(.*)": "hub/$1"}
//! configs:
//!   "mirror.example:5000":
//!     auth: {username: me, password: secret}
//!     tls: {ca_file: /etc/ssl/mirror.pem}
//! ```

mod fields;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) use fields::{Auth, EndpointUrl, Tls};
use fields::{Rewrites, absent_is_empty};

use crate::reference::Parts;

/// The name that stands for every registry without an entry of its own.
const ANY: &str = "*";
/// What answers for docker.io.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Why `registries.yaml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no YAML, has an unknown field or a value that cannot be right.
    #[error("{path}{at}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// `:line:column`, when known.
        at: String,
        /// What is wrong there.
        message: String,
    },
}

/// What is configured for registries; empty when there is no file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registries {
    #[serde(default, deserialize_with = "absent_is_empty")]
    mirrors: BTreeMap<String, Mirror>,
    #[serde(default, deserialize_with = "absent_is_empty")]
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    #[serde(default, alias = "endpoints", deserialize_with = "absent_is_empty")]
    endpoint: Vec<EndpointUrl>,
    #[serde(default, deserialize_with = "absent_is_empty")]
    rewrite: Rewrites,
}

/// How to talk to one host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostConfig {
    #[serde(default)]
    pub(crate) auth: Option<Auth>,
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
}

/// Where to ask for a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// `https://host:port/v2`, without a slash at its end.
    pub(crate) base: String,
    /// `host[:port]`, by which `configs` and errors name it.
    pub(crate) host: String,
    /// The repository's name there.
    pub(crate) repository: String,
    /// The registry itself rather than a mirror of it.
    pub(crate) is_origin: bool,
}

impl Registries {
    /// Reads the first of the files that is there.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, RegistriesError> {
        for path in paths {
            match std::fs::read_to_string(path) {
                Ok(text) => return Self::parse(path, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(RegistriesError::Read {
                        path: path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(Self::default())
    }

    fn parse(path: &Path, text: &str) -> Result<Self, RegistriesError> {
        if text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            return Ok(Self::default());
        }
        serde_yaml::from_str(text).map_err(|error| {
            let place = error.location();
            let message = error.to_string();
            RegistriesError::Content {
                path: path.to_owned(),
                at: place.map_or_else(String::new, |place| {
                    format!(":{}:{}", place.line(), place.column())
                }),
                // The place is told in front, as compilers do.
                message: message.split(" at line ").next().unwrap_or_default().to_owned(),
            }
        })
    }

    /// Where to look for an image, mirrors first, the registry itself last.
    pub(crate) fn places(&self, image: &Parts<'_>) -> Vec<Place> {
        let mirror = self.mirrors.get(image.registry).or_else(|| self.mirrors.get(ANY));
        let mut places: Vec<Place> = Vec::new();
        if let Some(mirror) = mirror {
            let repository = mirror.rewrite.apply(image.repository);
            places.extend(mirror.endpoint.iter().map(|endpoint| Place {
                base: endpoint.base.clone(),
                host: endpoint.host.clone(),
                repository: repository.clone(),
                is_origin: false,
            }));
        }
        let origin = self.origin(image);
        if !places
            .iter()
            .any(|place| place.base == origin.base && place.repository == origin.repository)
        {
            places.push(origin);
        }
        places
    }

    fn origin(&self, image: &Parts<'_>) -> Place {
        let host = match image.registry {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        // As docker and containerd have it: what is on this very machine needs no TLS unless the file says so.
        let scheme = if is_loopback(host) && self.host(host).and_then(|host| host.tls.as_ref()).is_none() {
            "http"
        } else {
            "https"
        };
        Place {
            base: format!("{scheme}://{host}/v2"),
            host: host.to_owned(),
            repository: image.repository.to_owned(),
            is_origin: true,
        }
    }

    /// What is configured for a host.
    pub(crate) fn host(&self, host: &str) -> Option<&HostConfig> {
        let name = if host == DOCKER_HUB { "docker.io" } else { host };
        self.configs
            .get(host)
            .or_else(|| self.configs.get(name))
            .or_else(|| self.configs.get(ANY))
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize;

    fn parse(text: &str) -> Result<Registries, RegistriesError> {
        Registries::parse(Path::new("/etc/flotilla/registries.yaml"), text)
    }

    fn places(text: &str, image: &str, expected: &[&str]) {
        let normal = normalize(image).unwrap();
        let found: Vec<String> = parse(text)
            .unwrap()
            .places(&Parts::of(&normal))
            .into_iter()
            .map(|place| format!("{}/{}", place.base, place.repository))
            .collect();
        assert_eq!(found, expected, "{image} with\n{text}");
    }

    fn refused(text: &str, line: usize, expected: &str) {
        let error = parse(text).unwrap_err().to_string();
        let place = format!("/etc/flotilla/registries.yaml:{line}:");
        assert!(error.starts_with(&place) && error.ends_with(expected), "{error}");
    }

    const MIRRORS: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://one.example:5000", "http://two.example/proxy/"]
    rewrite:
      "^library/(.*)": "hub/$1"
  "*":
    endpoint: ["https://any.example"]
"#;

    #[test]
    fn mirrors_are_asked_first_and_the_registry_last() {
        places(
            MIRRORS,
            "nginx:1",
            &[
                "https://one.example:5000/v2/hub/nginx",
                "http://two.example/proxy/hub/nginx",
                "https://registry-1.docker.io/v2/library/nginx",
            ],
        );
        places(
            MIRRORS,
            "quay.io/a/b",
            &["https://any.example/v2/a/b", "https://quay.io/v2/a/b"],
        );
        places(MIRRORS, "any.example/a", &["https://any.example/v2/a"]);
    }

    #[test]
    fn without_a_file_the_registry_is_asked_and_this_machine_without_tls() {
        places("", "nginx", &["https://registry-1.docker.io/v2/library/nginx"]);
        places("# nothing\n", "r.example/a", &["https://r.example/v2/a"]);
        places("", "localhost:5000/a", &["http://localhost:5000/v2/a"]);
        places("", "127.0.0.1:5000/a", &["http://127.0.0.1:5000/v2/a"]);
        places(
            "configs: {\"localhost:5000\": {tls: {ca_file: /ca.pem}}}",
            "localhost:5000/a",
            &["https://localhost:5000/v2/a"],
        );
    }

    #[test]
    fn hosts_have_credentials_and_certificates() {
        let text = "configs:\n  r.example:\n    auth: {username: me, password: secret}\n    \
                    tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem, insecure_skip_verify: true}\n  \
                    docker.io: {auth: {auth: bWU6c2VjcmV0}}\n";
        let registries = parse(text).unwrap();
        let host = registries.host("r.example").unwrap();
        assert_eq!(host.auth.as_ref().unwrap().credential.username, "me");
        assert!(host.tls.as_ref().unwrap().insecure_skip_verify);
        let hub = registries.host("registry-1.docker.io").unwrap();
        assert_eq!(hub.auth.as_ref().unwrap().credential.password, "secret");
        assert!(registries.host("other.example").is_none());
        assert!(
            !format!("{registries:?}").contains("secret"),
            "passwords stay out of logs"
        );
    }

    #[test]
    fn errors_name_file_and_line() {
        refused(
            "mirrors:\n  docker.io:\n    endpoint:\n    - \"one.example\"\n",
            4,
            "\"one.example\" is not a URL such as https://mirror.example:5000",
        );
        refused(
            "mirrors:\n  docker.io:\n    rewrite:\n      \"(\": x\n",
            4,
            "\"(\" is not a regular expression",
        );
        refused(
            "configs:\n  r.example:\n    tls:\n      ca: [1]\n",
            4,
            "invalid type: sequence, expected path string",
        );
        refused(
            "mirror: {}\n",
            1,
            "unknown field `mirror`, expected `mirrors` or `configs`",
        );
        refused(
            "configs:\n  r.example:\n    auth: {auth: '*'}\n",
            3,
            "`auth` is not the base64 of user:password",
        );
        refused("mirrors: {\n", 2, "");
    }
}
