//! The values in `registries.yaml`, checked as they are read, so that errors know their line.

use std::fmt;
use std::path::PathBuf;

use regex::Regex;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::credentials::{Credential, decode_auth};

/// The address of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct EndpointUrl {
    /// With `/v2` when the address has no path, and without a slash at its end.
    pub(crate) base: String,
    /// `host[:port]`.
    pub(crate) host: String,
}

impl TryFrom<String> for EndpointUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a URL such as https://mirror.example:5000");
        let url: http::Uri = text.parse().map_err(|_| refuse())?;
        let authority = url.authority().ok_or_else(refuse)?.as_str();
        if !matches!(url.scheme_str(), Some("http" | "https"))
            || url.query().is_some()
            || authority.contains('@')
        {
            return Err(refuse());
        }
        let path = match url.path().trim_end_matches('/') {
            "" => "/v2",
            path => path,
        };
        Ok(Self {
            base: format!("{}://{authority}{path}", url.scheme_str().unwrap_or("https")),
            host: authority.to_owned(),
        })
    }
}

/// A regular expression.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let regex = Regex::new(&text).map_err(|_| format!("{text:?} is not a regular expression"))?;
        Ok(Self(regex))
    }
}

/// Patterns and what takes the place of what they match, in the file's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Rewrites(Vec<(Pattern, String)>);

impl Rewrites {
    /// The first pattern that matches decides.
    pub(super) fn apply(&self, repository: &str) -> String {
        let fitting = self.0.iter().find(|(pattern, _)| pattern.0.is_match(repository));
        fitting.map_or_else(
            || repository.to_owned(),
            |(pattern, replacement)| pattern.0.replace(repository, replacement).into_owned(),
        )
    }
}

impl<'de> Deserialize<'de> for Rewrites {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RewritesVisitor)
    }
}

struct RewritesVisitor;

impl<'de> Visitor<'de> for RewritesVisitor {
    type Value = Rewrites;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map from regular expressions to names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rewrites, A::Error> {
        let mut rewrites = Vec::new();
        while let Some(rewrite) = map.next_entry()? {
            rewrites.push(rewrite);
        }
        Ok(Rewrites(rewrites))
    }
}

/// A user of a host.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AuthFields")]
pub(crate) struct Auth {
    pub(crate) credential: Credential,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AuthFields {
    username: String,
    password: String,
    auth: Option<String>,
    #[serde(alias = "identitytoken")]
    identity_token: Option<String>,
}

impl TryFrom<AuthFields> for Auth {
    type Error = String;

    fn try_from(fields: AuthFields) -> Result<Self, String> {
        let (username, password) = match fields.auth {
            Some(auth) => decode_auth(&auth).ok_or("`auth` is not the base64 of user:password")?,
            None => (fields.username, fields.password),
        };
        Ok(Self {
            credential: Credential {
                username,
                password,
                identity_token: fields.identity_token,
                registry_token: None,
            },
        })
    }
}

/// How a host's certificate is verified, and which one is shown to it.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Authorities in PEM, trusted besides those of the system.
    #[serde(alias = "ca")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(alias = "cert")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(alias = "key")]
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Tls(ca {:?}, certificate {:?})",
            self.ca_file, self.cert_file
        )
    }
}

/// `key:` without a value is as good as no key.
pub(super) fn absent_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
