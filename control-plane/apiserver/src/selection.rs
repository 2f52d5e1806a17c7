//! Which objects of a list or a watch are wanted.

use std::borrow::Cow;
use std::collections::BTreeMap;

use flotilla_api::selector::{FieldSelector, LabelSelector};
use flotilla_api::{Kind, Status};
use flotilla_report::report;
use flotilla_store::Stored;
use serde::Deserialize;

use crate::query::Query;

/// Selectors by label and field, with the kind whose objects they pick.
pub(crate) struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    pub(crate) fn parse(kind: &'static Kind, query: &Query) -> Result<Self, Status> {
        Ok(Self {
            kind,
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(kind, query.get("fieldSelector").unwrap_or_default())?,
        })
    }

    /// Whether everything is picked.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be picked, where the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.exactly("metadata.name")
    }

    /// Whether the object is picked. What cannot be read is not.
    pub(crate) fn picks(&self, stored: &Stored) -> bool {
        self.name().is_none_or(|name| *name == *stored.key.name)
            && (self.labels.is_empty() || self.labels.matches(&labels(stored)))
            && (self.fields.is_empty() || self.picks_fields(stored))
    }

    fn picks_fields(&self, stored: &Stored) -> bool {
        let storage = self.kind.storage().unwrap_or(self.kind);
        match storage.decode_stored(&stored.json) {
            Ok(object) => self.fields.matches(self.kind, &*self.kind.from_storage(object)),
            Err(error) => {
                tracing::error!(object = %stored.key, error = report(&error), "a stored object cannot be read");
                false
            }
        }
    }
}

/// The labels of an object, without decoding the rest of it.
fn labels(stored: &Stored) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Labelled<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    }
    let labelled: Option<Labelled<'_>> = serde_json::from_slice(&stored.json).ok();
    let labels = labelled
        .map(|labelled| labelled.metadata.labels)
        .unwrap_or_default();
    labels
        .into_iter()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
