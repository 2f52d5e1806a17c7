//! Which form of an answer a client takes, and in which form it sends its body.
//!
//! Pure: header values in, a choice out.

use flotilla_api::{Reason, Status, patch::PatchKind};

/// The form of an answer that holds objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The objects themselves.
    Json,
    /// Rows for people, in a version of `meta.k8s.io`.
    Table(&'static str),
    /// Only the metadata, in a version of `meta.k8s.io`.
    Partial(&'static str),
}

/// One entry of an `Accept` header.
#[derive(Debug, PartialEq, Eq)]
struct Range<'a> {
    type_: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let type_ = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()));
        Self {
            type_,
            parameters: parameters.collect(),
        }
    }

    fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    }

    fn is_json(&self) -> bool {
        matches!(self.type_, "application/json" | "application/*" | "*/*" | "")
    }

    fn weight(&self) -> f32 {
        self.parameter("q").parse().unwrap_or(1.0)
    }
}

/// The entries of the header, the most wanted first.
fn ranges(accept: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = accept
        .split(',')
        .map(Range::parse)
        .filter(|range| range.weight() > 0.0)
        .collect();
    ranges.sort_by(|left, right| right.weight().total_cmp(&left.weight()));
    ranges
}

/// The first form that the client names and this server has.
pub(crate) fn format(accept: &str) -> Result<Format, Status> {
    ranges(accept)
        .iter()
        .find_map(format_of)
        .ok_or_else(|| not_acceptable("application/json"))
}

fn format_of(range: &Range<'_>) -> Option<Format> {
    if !range.is_json() {
        return None;
    }
    let version = match range.parameter("v") {
        "v1" => "meta.k8s.io/v1",
        "v1beta1" => "meta.k8s.io/v1beta1",
        _ => "",
    };
    match (range.parameter("as"), range.parameter("g"), version) {
        ("", _, _) => Some(Format::Json),
        ("Table", "meta.k8s.io", version) if !version.is_empty() => Some(Format::Table(version)),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", version)
            if !version.is_empty() =>
        {
            Some(Format::Partial(version))
        }
        _ => None,
    }
}

/// The version of `apidiscovery.k8s.io` that the client wants discovery to be aggregated in; none for plain lists.
pub(crate) fn aggregated_discovery(accept: &str) -> Option<&'static str> {
    for range in ranges(accept).iter().filter(|range| range.is_json()) {
        match (range.parameter("as"), range.parameter("v")) {
            ("APIGroupDiscoveryList", "v2") => return Some("v2"),
            ("APIGroupDiscoveryList", "v2beta1") => return Some("v2beta1"),
            ("", _) => return None,
            _ => {}
        }
    }
    None
}

/// The content type of OpenAPI v2 in its protobuf form.
pub(crate) const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// As older clients ask for it. It must not be answered: `@` is not allowed in a content type, and they check.
const OPENAPI_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Whether the client wants OpenAPI v2 in its protobuf form.
pub(crate) fn wants_openapi_protobuf(accept: &str) -> bool {
    let known = |type_: &str| type_ == OPENAPI_PROTOBUF || type_ == OPENAPI_PROTOBUF_OLD;
    let ranges = ranges(accept);
    ranges
        .iter()
        .find(|range| known(range.type_) || range.is_json())
        .is_some_and(|range| known(range.type_))
}

fn not_acceptable(accepted: &str) -> Status {
    Status::new(
        Reason::NotAcceptable,
        format!("only the following media types are accepted: {accepted}"),
    )
}

/// The form of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The form of an object that a client sends.
pub(crate) fn encoding(content_type: &str) -> Result<Encoding, Status> {
    match Range::parse(content_type).type_ {
        "" | "application/json" | "text/json" => Ok(Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(unsupported(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The language of a patch that a client sends.
pub(crate) fn patch_kind(content_type: &str) -> Result<PatchKind, Status> {
    match Range::parse(content_type).type_ {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::StrategicMerge),
        "application/apply-patch+yaml" => Err(Status::new(
            Reason::UnsupportedMediaType,
            "server-side apply is not supported by this server yet; use client-side apply",
        )),
        _ => Err(unsupported(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        )),
    }
}

fn unsupported(accepted: &str) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    );
    Status::new(Reason::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, wanted: Option<Format>) {
        assert_eq!(format(accept).ok(), wanted, "{accept}");
    }

    #[test]
    fn the_first_known_form_is_taken() {
        check("", Some(Format::Json));
        check("*/*", Some(Format::Json));
        check("application/json", Some(Format::Json));
        check(
            "application/vnd.kubernetes.protobuf, application/json",
            Some(Format::Json),
        );
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some(Format::Table("meta.k8s.io/v1")),
        );
        check(
            "application/json;as=Table;g=meta.k8s.io;v=v1beta1, application/json",
            Some(Format::Table("meta.k8s.io/v1beta1")),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some(Format::Partial("meta.k8s.io/v1")),
        );
        check(
            "application/json;as=Other;g=meta.k8s.io;v=v1, */*;q=0.1",
            Some(Format::Json),
        );
    }

    #[test]
    fn protobuf_alone_is_not_served() {
        check("application/vnd.kubernetes.protobuf", None);
        check("text/html", None);
        check("application/json;q=0", None);
    }

    #[test]
    fn discovery_is_aggregated_only_for_those_who_ask_first() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_discovery(new), Some("v2"));
        assert_eq!(aggregated_discovery("application/json, */*"), None);
    }

    #[test]
    fn openapi_is_protobuf_for_those_who_ask_first() {
        assert!(wants_openapi_protobuf(OPENAPI_PROTOBUF));
        assert!(wants_openapi_protobuf(OPENAPI_PROTOBUF_OLD));
        assert!(!wants_openapi_protobuf("application/json, */*"));
    }

    #[test]
    fn bodies_have_known_types() {
        assert_eq!(encoding("application/json; charset=utf-8"), Ok(Encoding::Json));
        assert_eq!(encoding("application/yaml"), Ok(Encoding::Yaml));
        assert_eq!(
            encoding("application/vnd.kubernetes.protobuf"),
            Ok(Encoding::Protobuf)
        );
        assert_eq!(
            encoding("application/cbor").unwrap_err().reason,
            Reason::UnsupportedMediaType
        );
        assert_eq!(patch_kind("application/merge-patch+json"), Ok(PatchKind::Merge));
        assert!(
            patch_kind("application/apply-patch+yaml")
                .unwrap_err()
                .message
                .contains("server-side apply")
        );
    }
}
