//! Where a list goes on: the content of `continue` tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flotilla_api::Status;
use flotilla_store::{Key, Revision};
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// After which object of which moment a list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    #[serde(rename = "v")]
    version: String,
    /// The moment; -1 stands for whatever is there now.
    #[serde(rename = "rv")]
    revision: i64,
    namespace: String,
    name: String,
}

impl Position {
    pub(super) fn after(revision: Revision, key: &Key) -> Self {
        Self {
            version: VERSION.to_owned(),
            revision: i64::try_from(revision.0).unwrap_or(i64::MAX),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }

    /// The same place, in whatever is there when the list goes on.
    pub(super) fn inconsistent(self) -> Self {
        Self { revision: -1, ..self }
    }

    /// The moment, unless any will do.
    pub(super) fn revision(&self) -> Option<Revision> {
        u64::try_from(self.revision).ok().map(Revision)
    }

    pub(super) fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    pub(super) fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and a number are always JSON");
        URL_SAFE_NO_PAD.encode(json)
    }

    pub(super) fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |_| Status::bad_request("continue key is not valid: it was not made by this API");
        let json = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|error| invalid(error.to_string()))?;
        let position: Self = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        if position.version == VERSION {
            Ok(position)
        } else {
            Err(invalid(position.version))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_store::ResourceName;

    fn position() -> Position {
        Position::after(
            Revision(7),
            &Key::new(ResourceName::new("", "pods"), "default", "web"),
        )
    }

    #[test]
    fn a_token_says_where_to_go_on() {
        let read = Position::decode(&position().encode()).unwrap();
        assert_eq!(read, position());
        assert_eq!(read.revision(), Some(Revision(7)));
        assert_eq!(read.inconsistent().revision(), None);
    }

    #[test]
    fn made_up_tokens_are_refused() {
        let other_version = URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"namespace":"","name":""}"#);
        for token in ["", "?", "e30", other_version.as_str()] {
            assert!(Position::decode(token).is_err(), "{token}");
        }
    }
}
