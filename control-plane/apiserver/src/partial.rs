//! Objects reduced to their metadata, without decoding the rest of them.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A `PartialObjectMetadata` in a version of `meta.k8s.io`; `None` when the stored bytes cannot be read.
pub(crate) fn object(api_version: &str, json: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Partial<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let partial: Partial<'_> = serde_json::from_slice(json).ok()?;
    let metadata = partial.metadata.get();
    let text =
        format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{api_version}","metadata":{metadata}}}"#);
    Some(text.into())
}
