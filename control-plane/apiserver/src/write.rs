//! Requests that change objects.

use bytes::Bytes;
use flotilla_api::patch::PatchKind;
use flotilla_api::{Decoded, Kind, Object, Path, Status, decode};
use flotilla_resources::{DeleteOptions, Deleted, Part, Propagation, WriteOptions};
use flotilla_store::Stored;
use http::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions as DeleteBody;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::list::{self, Wanted, resource_of, snapshot_at};
use crate::negotiate;
use crate::query::{Query, dry_run, refused};
use crate::render::{ListMeta, Renderer, json_response, object_response};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::subresources;

/// The object that a request is about.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    /// The kind under which the objects are stored.
    pub(crate) fn storage(&self) -> &'static Kind {
        self.kind.storage().unwrap_or(self.kind)
    }
}

/// Reads what all writes have in common; `options` is Kubernetes' name for the parameters of this one.
fn write_options(query: &Query, options: &str) -> Result<WriteOptions, Status> {
    Ok(WriteOptions {
        dry_run: query.dry_run(options)?,
        field_validation: query.field_validation(options)?,
    })
}

/// Reads an object from a body and turns it into the form in which it is stored.
fn decoded(
    kind: &Kind,
    json: &Bytes,
    options: &WriteOptions,
) -> Result<(Box<dyn Object>, Vec<String>), Status> {
    let Decoded { object, warnings } = kind.decode(json, options.field_validation)?;
    Ok((kind.to_storage(object), warnings))
}

/// Stores a new object.
pub(crate) async fn create(
    server: &ApiServer,
    call: &mut Call,
    kind: &'static Kind,
    namespace: &str,
) -> Result<Response<Body>, Status> {
    let options = write_options(&call.query, "CreateOptions")?;
    let renderer = Renderer::of(kind, call)?;
    let (object, warnings) = decoded(kind, &call.read_json().await?, &options)?;
    let storage = kind.storage().unwrap_or(kind);
    let stored = server
        .resources()
        .create(storage, namespace, object, &options)
        .await?;
    object_response(&renderer, StatusCode::CREATED, &stored, &warnings)
}

/// Replaces a part of an object.
pub(crate) async fn update(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    part: Part,
) -> Result<Response<Body>, Status> {
    let options = write_options(&call.query, "UpdateOptions")?;
    let renderer = Renderer::of(place.kind, call)?;
    let json = call.read_json().await?;
    let (object, warnings) = match part {
        Part::Scale => (
            Box::new(decode::body::<Scale>(&json)?) as Box<dyn Object>,
            Vec::new(),
        ),
        _ => decoded(place.kind, &json, &options)?,
    };
    let resources = server.resources();
    let stored = resources
        .update(
            place.storage(),
            place.namespace,
            place.name,
            object,
            part,
            &options,
        )
        .await?;
    written(&renderer, place.kind, part, &stored, &warnings)
}

/// Changes a part of an object.
pub(crate) async fn patch(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    part: Part,
) -> Result<Response<Body>, Status> {
    let how = negotiate::patch_kind(call.content_type())?;
    let options = write_options(&call.query, "PatchOptions")?;
    if call.query.optional_flag("force").is_some() {
        return Err(refused("PatchOptions", |errors| {
            errors.forbidden(Path::root("force"), "may not be specified for non-apply patch");
        }));
    }
    let renderer = Renderer::of(place.kind, call)?;
    let patch = read_patch(call, how).await?;
    let resources = server.resources();
    let written_object = resources
        .patch(
            place.storage(),
            place.namespace,
            place.name,
            how,
            patch,
            part,
            &options,
        )
        .await?;
    written(
        &renderer,
        place.kind,
        part,
        &written_object.object,
        &written_object.warnings,
    )
}

async fn read_patch(call: &mut Call, how: PatchKind) -> Result<Value, Status> {
    let body = call.read_body().await?;
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let fits = match how {
        PatchKind::Json => patch.is_array(),
        PatchKind::Merge | PatchKind::StrategicMerge => patch.is_object(),
    };
    match fits {
        true => Ok(patch),
        false => Err(Status::bad_request(
            "error decoding patch: the body is not of the form that its type names",
        )),
    }
}

/// The answer to a write: the object, or its scale.
fn written(
    renderer: &Renderer,
    kind: &'static Kind,
    part: Part,
    stored: &Stored,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    match part {
        Part::Scale => subresources::scale_response(kind, stored),
        _ => object_response(renderer, StatusCode::OK, stored, warnings),
    }
}

const DELETE_OPTIONS: &str = "DeleteOptions";

/// How to delete, from body and query; the body wins, as in Kubernetes.
pub(crate) fn delete_options(query: &Query, body: &[u8]) -> Result<DeleteOptions, Status> {
    let body: DeleteBody = match body.is_empty() {
        true => DeleteBody::default(),
        false => decode::body(body)?,
    };
    if let Some(kind) = body
        .kind
        .as_deref()
        .filter(|kind| !["", "DeleteOptions"].contains(kind))
    {
        // Somebody who sends another object means something else than to delete this one.
        return Err(Status::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind (DeleteOptions)"
        )));
    }
    let propagation = body
        .propagation_policy
        .as_deref()
        .or_else(|| query.get("propagationPolicy"));
    let orphans = body
        .orphan_dependents
        .or_else(|| query.optional_flag("orphanDependents"));
    let dry_run = match body.dry_run.as_deref() {
        None | Some([]) => query.dry_run(DELETE_OPTIONS)?,
        Some(asked) => dry_run(
            &asked.iter().map(String::as_str).collect::<Vec<_>>(),
            DELETE_OPTIONS,
        )?,
    };
    let preconditions = body.preconditions.unwrap_or_default();
    Ok(DeleteOptions {
        grace_seconds: body
            .grace_period_seconds
            .map_or_else(|| query.number("gracePeriodSeconds"), |seconds| Ok(Some(seconds)))?,
        propagation: propagation_of(propagation, orphans)?,
        uid: preconditions.uid,
        resource_version: preconditions.resource_version,
        dry_run,
    })
}

fn propagation_of(policy: Option<&str>, orphans: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphans) {
        (Some(policy), Some(_)) => Err(refused(DELETE_OPTIONS, |errors| {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(Path::root("propagationPolicy"), policy, why);
        })),
        (None, None) => Ok(None),
        (None, Some(true)) | (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => Err(refused(DELETE_OPTIONS, |errors| {
            let supported = ["Background", "Foreground", "Orphan"];
            errors.not_supported(Path::root("propagationPolicy"), other, &supported);
        })),
    }
}

/// Kubernetes answers the deletion of these with the object, of all others with a `Status`.
const RETURNED_WHEN_GONE: [(&str, &str); 3] = [("", "pods"), ("", "services"), ("", "serviceaccounts")];

/// Deletes one object.
pub(crate) async fn delete(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
) -> Result<Response<Body>, Status> {
    let renderer = Renderer::of(place.kind, call)?;
    let body = call.read_json().await?;
    let options = delete_options(&call.query, &body)?;
    match server
        .resources()
        .delete(place.storage(), place.namespace, place.name, &options)
        .await?
    {
        Deleted::Gone(stored) if !RETURNED_WHEN_GONE.contains(&place.kind.resource_name()) => {
            Ok(gone(place.kind, &stored))
        }
        Deleted::Gone(stored) | Deleted::Pending(stored) => {
            object_response(&renderer, StatusCode::OK, &stored, &[])
        }
    }
}

/// What Kubernetes answers when the object is gone at once.
fn gone(kind: &Kind, stored: &Stored) -> Response<Body> {
    let object = kind.storage().unwrap_or(kind).decode_stored(&stored.json).ok();
    let uid = object
        .and_then(|object| object.meta().uid.clone())
        .unwrap_or_default();
    let mut details = json!({"name": &*stored.key.name, "kind": kind.resource, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    json_response(StatusCode::OK, success(Some(details)).to_string())
}

/// The `Status` object of a success.
pub(crate) fn success(details: Option<Value>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

/// Deletes all objects that are picked, and answers with their last states.
pub(crate) async fn delete_collection(
    server: &ApiServer,
    call: &mut Call,
    kind: &'static Kind,
    namespace: Option<&str>,
) -> Result<Response<Body>, Status> {
    let renderer = Renderer::of(kind, call)?;
    let selection = Selection::parse(kind, &call.query)?;
    let body = call.read_json().await?;
    let options = delete_options(&call.query, &body)?;
    let snapshot = snapshot_at(server.resources().replica(), server.recent(), Wanted::Latest).await?;
    let picked = list::page(&snapshot, &resource_of(kind), namespace, &selection, None, None).objects;
    let mut deleted = Vec::with_capacity(picked.len());
    for object in picked {
        let storage = kind.storage().unwrap_or(kind);
        let (namespace, name) = (&object.key.namespace, &object.key.name);
        match server
            .resources()
            .delete(storage, namespace, name, &options)
            .await
        {
            Ok(Deleted::Gone(stored) | Deleted::Pending(stored)) => deleted.push(stored),
            Err(status) if status.reason == flotilla_api::Reason::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    let meta = ListMeta {
        revision: snapshot.revision(),
        ..ListMeta::default()
    };
    Ok(list::body(renderer, &meta, deleted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, body: &str) -> Result<DeleteOptions, String> {
        delete_options(&Query::parse(query), body.as_bytes()).map_err(|status| status.message)
    }

    #[test]
    fn deletion_is_read_from_query_or_body() {
        let options = read("gracePeriodSeconds=5&propagationPolicy=Foreground&dryRun=All", "").unwrap();
        assert_eq!(options.grace_seconds, Some(5));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert!(options.dry_run);
        let body = r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"orphanDependents":true,"preconditions":{"uid":"1"}}"#;
        let options = read("gracePeriodSeconds=5", body).unwrap();
        assert_eq!(options.grace_seconds, Some(0));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        assert_eq!(options.uid.as_deref(), Some("1"));
    }

    #[test]
    fn deletions_that_make_no_sense_are_refused() {
        assert!(read("propagationPolicy=Sideways", "").is_err());
        assert!(read("propagationPolicy=Orphan&orphanDependents=true", "").is_err());
        assert!(read("dryRun=Some", "").is_err());
        assert!(read("", "{").is_err());
        assert!(read("", r#"{"dryRun":["Some"]}"#).is_err());
        assert_eq!(
            read("", r#"{"kind":"Pod","apiVersion":"v1"}"#).unwrap_err(),
            "the kind in the data (Pod) does not match the expected kind (DeleteOptions)"
        );
        assert_eq!(
            read("", r#"{"propagationPolicy":"Sideways"}"#).unwrap_err(),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Background", "Foreground", "Orphan""#
        );
    }
}
