//! What lies below an object: status, scale, binding, eviction, log, exec and the like, proxy, token.

mod token;

pub use token::issue_token;

use flotilla_api::{Kind, Status, decode, registry};
use flotilla_resources::{Binding as Bind, Part};
use flotilla_store::Stored;
use http::{Method, Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, Namespace, Pod};
use k8s_openapi::api::policy::v1::Eviction;

use crate::body::Body;
use crate::call::Call;
use crate::path::ResourcePath;
use crate::render::json_response;
use crate::server::ApiServer;
use crate::write::{self, Place, success};
use crate::{logs, metrics, proxy, resource, streaming};

/// Answers a request for a subresource.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    name: &str,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    place.kind.subresource(name).ok_or_else(Status::no_such_path)?;
    match (name, call.method.clone()) {
        ("status", method) => part(server, call, place, Part::Status, &method).await,
        ("scale", Method::GET) => {
            let stored = server
                .resources()
                .get(place.storage(), place.namespace, place.name)
                .await?;
            scale_response(place.kind, &stored)
        }
        ("scale", method) => part(server, call, place, Part::Scale, &method).await,
        ("ephemeralcontainers", method) => {
            part(server, call, place, Part::Named("ephemeralcontainers"), &method).await
        }
        ("resize", method) => part(server, call, place, Part::Named("resize"), &method).await,
        ("finalize", Method::PUT) => finalize(server, call, place).await,
        ("binding", Method::POST) => bind(server, call, path).await,
        ("eviction", Method::POST) => evict(server, call, place).await,
        ("token", Method::POST) => token::create(server, call, place).await,
        ("log", Method::GET) if call.query.flag("deleted") => {
            logs::deleted::respond(server, place.namespace, place.name, &call.query).await
        }
        ("log", Method::GET) => {
            let pod = pod(server, place).await?;
            logs::respond(server.logs(), &pod, &call.query).await
        }
        ("exec" | "attach" | "portforward", Method::GET | Method::POST) => {
            streaming::respond(server, call, place, name).await
        }
        ("proxy", _) if !place.kind.namespaced => metrics::of_node(server, call, path),
        ("proxy", _) => proxy::respond(server, call, path).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn part(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    part: Part,
    method: &Method,
) -> Result<Response<Body>, Status> {
    match *method {
        Method::GET => resource::get(server, call, place).await,
        Method::PUT => write::update(server, call, place, part).await,
        Method::PATCH => write::patch(server, call, place, part).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// The scale of an object as an answer.
pub(crate) fn scale_response(kind: &Kind, stored: &Stored) -> Result<Response<Body>, Status> {
    let object = kind.decode_stored(&stored.json)?;
    let mut scale = kind.scale(&*object).ok_or_else(Status::no_such_path)?;
    scale.metadata.resource_version = Some(stored.modified.to_string());
    Ok(json_response(
        StatusCode::OK,
        serde_json::to_vec(&scale).map_err(Status::internal)?,
    ))
}

/// The pod as it is now.
pub(crate) async fn pod(server: &ApiServer, place: Place<'_>) -> Result<Pod, Status> {
    server
        .resources()
        .get_typed::<Pod>(place.namespace, place.name)
        .await
}

/// Replaces the finalizers of a namespace's spec, which nothing else can.
async fn finalize(server: &ApiServer, call: &mut Call, place: Place<'_>) -> Result<Response<Body>, Status> {
    let body: Namespace = decode::body(&call.read_json().await?)?;
    let wanted = body.spec.unwrap_or_default().finalizers;
    let change = |namespace: &mut Namespace| {
        let spec = namespace.spec.get_or_insert_default();
        std::mem::replace(&mut spec.finalizers, wanted.clone()) != wanted
    };
    let changed = server
        .resources()
        .modify::<Namespace>("", place.name, Part::Whole, change)
        .await?;
    match changed {
        Some(namespace) => Ok(json_response(
            StatusCode::OK,
            serde_json::to_vec(&namespace).map_err(Status::internal)?,
        )),
        None => resource::get(server, call, place).await,
    }
}

/// Binds a pod to a node.
pub(crate) async fn bind(
    server: &ApiServer,
    call: &mut Call,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    if call.method != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let body: Binding = decode::body(&call.read_json().await?)?;
    let name = path
        .name
        .clone()
        .filter(|_| path.subresource.is_some())
        .or(body.metadata.name);
    let binding = Bind {
        namespace: path.namespace().to_owned(),
        name: name
            .ok_or_else(|| Status::bad_request("metadata.name: Required value: the name of the pod"))?,
        uid: body.metadata.uid.unwrap_or_default(),
        node: body
            .target
            .name
            .ok_or_else(|| Status::bad_request("target.name: Required value"))?,
    };
    if !call.query.dry_run("CreateOptions")? {
        server
            .resources()
            .bind(vec![binding])
            .await
            .into_iter()
            .collect::<Result<Vec<()>, Status>>()?;
    }
    Ok(json_response(StatusCode::CREATED, success(None).to_string()))
}

/// Deletes a pod on behalf of somebody who drains a node. There are no disruption budgets yet to ask first.
async fn evict(server: &ApiServer, call: &mut Call, place: Place<'_>) -> Result<Response<Body>, Status> {
    let body: Eviction = decode::body(&call.read_json().await?)?;
    if body.metadata.name.is_some_and(|name| name != place.name) {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let options = body
        .delete_options
        .map(|options| serde_json::to_vec(&options))
        .transpose();
    let options = write::delete_options(
        &call.query,
        &options.map_err(Status::internal)?.unwrap_or_default(),
    )?;
    server
        .resources()
        .delete(registry().of::<Pod>(), place.namespace, place.name, &options)
        .await?;
    Ok(json_response(StatusCode::CREATED, success(None).to_string()))
}
