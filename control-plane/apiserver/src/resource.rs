//! Requests for objects: from a path and a method to the handler.

use flotilla_api::{Kind, Status, registry};
use flotilla_resources::Part;
use http::{Method, Response, StatusCode};

use crate::auth::{self, Attributes};
use crate::body::Body;
use crate::call::Call;
use crate::path::ResourcePath;
use crate::render::{Renderer, object_response};
use crate::server::ApiServer;
use crate::status::Failure;
use crate::write::{self, Place};
use crate::{list, members, metrics, reviews, subresources, watch};

/// Kubernetes' word for what a request does.
pub(crate) fn verb(method: &Method, path: &ResourcePath, watches: bool) -> &'static str {
    match (method, path.name.is_some()) {
        (&Method::GET | &Method::HEAD, false) if watches => "watch",
        (&Method::GET | &Method::HEAD, false) => "list",
        (&Method::GET | &Method::HEAD, true) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => "unknown",
    }
}

/// Answers a request for objects.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    path: &ResourcePath,
) -> Result<Response<Body>, Failure> {
    let verb = verb(&call.method, path, call.query.flag("watch"));
    auth::check(&call.user, &Attributes::of_resource(verb, path))?;
    if let Some(review) = reviews::find(&path.group, &path.version, &path.resource) {
        return Ok(reviews::respond(server, call, path, review).await?);
    }
    if (path.group.as_str(), path.version.as_str(), path.resource.as_str()) == ("", "v1", "bindings") {
        return Ok(subresources::bind(server, call, path).await?);
    }
    let kind = registry()
        .by_resource(&path.group, &path.version, &path.resource)
        .filter(|kind| kind.namespaced || path.namespace.is_none())
        .ok_or_else(Status::no_such_path)?;
    if kind.computed {
        return Ok(match kind.resource {
            "members" => members::respond(server, call, kind, path).await?,
            _ => metrics::respond(server, call, kind, path)?,
        });
    }
    match (&path.name, &path.subresource) {
        (None, _) => collection(server, call, kind, path, verb).await,
        // Objects of a kind with namespaces are always in one.
        (Some(_), _) if kind.namespaced && path.namespace.is_none() => Err(Status::no_such_path().into()),
        (Some(name), None) => {
            let place = Place {
                kind,
                namespace: path.namespace(),
                name,
            };
            Ok(object(server, call, place, verb).await?)
        }
        (Some(name), Some(subresource)) => {
            let place = Place {
                kind,
                namespace: path.namespace(),
                name,
            };
            Ok(subresources::respond(server, call, place, subresource, path).await?)
        }
    }
}

/// Refuses what the kind does not offer.
fn check_verb(kind: &Kind, verb: &str) -> Result<(), Status> {
    match kind.verbs.contains(&verb) {
        true => Ok(()),
        false => Err(Status::method_not_allowed()),
    }
}

async fn collection(
    server: &ApiServer,
    call: &mut Call,
    kind: &'static Kind,
    path: &ResourcePath,
    verb: &str,
) -> Result<Response<Body>, Failure> {
    check_verb(kind, verb)?;
    let namespace = path.namespace.as_deref();
    match verb {
        "list" => list::respond(server, call, kind, namespace).await,
        "watch" => watch::respond(server, call, kind, namespace).await,
        // Over all namespaces objects can only be read: nobody means to empty every namespace at once.
        _ if kind.namespaced && namespace.is_none() => Err(Status::method_not_allowed().into()),
        "deletecollection" => Ok(write::delete_collection(server, call, kind, namespace).await?),
        "create" => Ok(write::create(server, call, kind, path.namespace()).await?),
        _ => Err(Status::method_not_allowed().into()),
    }
}

async fn object(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    verb: &str,
) -> Result<Response<Body>, Status> {
    check_verb(place.kind, verb)?;
    match verb {
        "get" => get(server, call, place).await,
        "update" => write::update(server, call, place, Part::Whole).await,
        "patch" => write::patch(server, call, place, Part::Whole).await,
        "delete" => write::delete(server, call, place).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Answers with one object, as it is now.
pub(crate) async fn get(server: &ApiServer, call: &Call, place: Place<'_>) -> Result<Response<Body>, Status> {
    let renderer = Renderer::of(place.kind, call)?;
    if call.query.get("resourceVersion").is_some() {
        // What is read below is never older; a moment that is still to come is refused here.
        let wanted = list::wanted(&call.query, false)?;
        list::snapshot_at(server.resources().replica(), server.recent(), wanted).await?;
    }
    let found = server
        .resources()
        .get(place.storage(), place.namespace, place.name)
        .await;
    let stored = found.map_err(|status| match status.reason {
        flotilla_api::Reason::NotFound => Status::not_found(place.kind, place.name),
        _ => status,
    })?;
    object_response(&renderer, StatusCode::OK, &stored, &[])
}
