//! What may go wrong with a registry, in words that say what to do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use http::StatusCode;
use hyper_util::client::legacy;
use serde::Deserialize;

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection came about.
    #[error(
        "cannot reach registry {host}: check its name and port, DNS and firewalls; a mirror can be named in registries.yaml"
    )]
    Connect {
        /// The registry.
        host: String,
        /// What the system said.
        source: legacy::Error,
    },
    /// The registry's certificate is not trusted.
    #[error(
        "the certificate of registry {host} is not trusted: name its authority as configs.{host:?}.tls.ca_file in registries.yaml"
    )]
    Certificate {
        /// The registry.
        host: String,
        /// Why.
        source: legacy::Error,
    },
    /// The registry speaks no TLS, or another protocol.
    #[error(
        "registry {host} does not answer in HTTP: for one without TLS, name http://{host} as its mirror's endpoint in registries.yaml"
    )]
    Protocol {
        /// The registry.
        host: String,
        /// What came instead.
        source: legacy::Error,
    },
    /// It keeps silent.
    #[error(
        "registry {host} sent nothing for {seconds} s: it is overloaded, or a firewall swallows the connection"
    )]
    Silent {
        /// The registry.
        host: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to registry {host} broke")]
    Broken {
        /// The registry.
        host: String,
        /// What was wrong.
        source: hyper::Error,
    },
    /// There is no such image, or the registry does not show it to strangers.
    #[error("{what}: not found: check the image's name and tag{}", for_strangers(user.as_deref()))]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who asked.
        user: Option<String>,
    },
    /// Credentials are needed, or not accepted.
    #[error("{what}: {}", unauthorized(user.as_deref()))]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Who asked.
        user: Option<String>,
    },
    /// The registry limits how much is pulled.
    #[error(
        "registry {host} refuses more pulls for now (429 Too Many Requests): a mirror in registries.yaml or credentials raise the limit"
    )]
    TooMany {
        /// The registry.
        host: String,
    },
    /// Any other answer.
    #[error("registry {host} answered {status} for {what}{}", explained(message))]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// The registry's own words; may be empty.
        message: String,
    },
    /// Redirects that lead nowhere, in circles, or away from TLS.
    #[error("registry {host} redirects in circles, away from TLS, or to what is no URL")]
    Redirect {
        /// The registry.
        host: String,
    },
    /// What came is not what was named.
    #[error(
        "{what}: the registry sent {found} instead of {expected}: it, or something on the way, changes what it stores"
    )]
    Digest {
        /// What was asked for.
        what: String,
        /// Its digest.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// A document is far too large.
    #[error("{what} has more than {max} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        max: u64,
    },
    /// A manifest of schema 1.
    #[error(
        "{what} is stored in the old schema 1, which is no longer supported: push the image again with a current tool"
    )]
    OldManifest {
        /// What was asked for.
        what: String,
    },
    /// The token service's answer has no token.
    #[error("the token service {realm} of registry {host} gave no token")]
    Token {
        /// The registry.
        host: String,
        /// The token service.
        realm: String,
    },
    /// A certificate or key named in `registries.yaml` cannot be read.
    #[error("cannot read {path}, which registries.yaml names for {host}")]
    File {
        /// The registry.
        host: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key named in `registries.yaml` cannot be used.
    #[error("{path}, which registries.yaml names for {host}, holds no usable PEM")]
    Pem {
        /// The registry.
        host: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

#[derive(Deserialize)]
struct Explanation {
    #[serde(default)]
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl RegistryError {
    pub(super) fn of_status(
        status: StatusCode,
        body: &[u8],
        host: String,
        what: &str,
        user: Option<String>,
    ) -> Self {
        let what = what.to_owned();
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { what, user },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { what, user },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { host },
            _ => RegistryError::Status {
                host,
                what,
                status,
                message: explanation(body),
            },
        }
    }

    pub(super) fn of_connection(source: legacy::Error, host: String) -> Self {
        match tls_cause(&source) {
            Some(rustls::Error::InvalidCertificate(_)) => return RegistryError::Certificate { host, source },
            Some(rustls::Error::InvalidMessage(_)) => return RegistryError::Protocol { host, source },
            _ => {}
        }
        if source.is_connect() {
            RegistryError::Connect { host, source }
        } else {
            RegistryError::Protocol { host, source }
        }
    }

    /// Whether the same request may well succeed a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            RegistryError::Connect { .. }
            | RegistryError::Protocol { .. }
            | RegistryError::Silent { .. }
            | RegistryError::Broken { .. }
            | RegistryError::TooMany { .. } => true,
            RegistryError::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}

/// What TLS complained of, however deep it is wrapped.
fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // An error inside an io::Error is not among its sources.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match inner {
        Some(inner) => tls_cause(inner),
        None => tls_cause(error.source()?),
    }
}

fn explanation(body: &[u8]) -> String {
    let parsed: Option<Explanation> = serde_json::from_slice(body).ok();
    let items = parsed.into_iter().flat_map(|parsed| parsed.errors);
    let texts: Vec<String> = items
        .map(|item| format!("{}: {}", item.code, item.message))
        .collect();
    texts.join("; ")
}

fn explained(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

fn for_strangers(user: Option<&str>) -> &'static str {
    match user {
        None => "; a registry may also hide an image from those who show no credentials (imagePullSecrets)",
        Some(_) => "",
    }
}

fn unauthorized(user: Option<&str>) -> String {
    match user {
        None => "the registry wants credentials: name a secret of type kubernetes.io/dockerconfigjson under \
                 imagePullSecrets of the pod or of its service account"
            .to_owned(),
        Some(user) => {
            format!("the registry does not let {user:?} pull this: wrong password, or no right to read it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, user: Option<&str>, expected: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let error = RegistryError::of_status(
            status,
            body.as_bytes(),
            "r.example".to_owned(),
            "r.example/app:1",
            user.map(str::to_owned),
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_say_what_to_do() {
        check(
            404,
            "",
            Some("me"),
            "r.example/app:1: not found: check the image's name and tag",
        );
        check(
            401,
            "",
            None,
            "r.example/app:1: the registry wants credentials: name a secret of type kubernetes.io/dockerconfigjson under \
             imagePullSecrets of the pod or of its service account",
        );
        check(
            403,
            "",
            Some("me"),
            "r.example/app:1: the registry does not let \"me\" pull this: wrong password, or no right to read it",
        );
        check(
            500,
            r#"{"errors":[{"code":"UNKNOWN","message":"disk full"}]}"#,
            None,
            "registry r.example answered 500 Internal Server Error for r.example/app:1 (UNKNOWN: disk full)",
        );
        check(
            502,
            "<html>",
            None,
            "registry r.example answered 502 Bad Gateway for r.example/app:1",
        );
    }
}
