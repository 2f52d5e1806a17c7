//! Lists: one consistent moment, whole or in pages.

mod position;
mod recent;
mod versions;

pub(crate) use recent::RecentSnapshots;
pub(crate) use versions::{Wanted, snapshot_at, wanted};

use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::{Kind, Status};
use flotilla_store::{Key, ResourceName, Snapshot, Stored};
use http::{Response, StatusCode};

use crate::body::{Body, Coalesced};
use crate::call::Call;
pub(crate) use crate::render::ListMeta;
use crate::render::{LIST_END, Renderer, json_response};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::status::Failure;
use position::Position;

/// The store's name of a kind's objects.
pub(crate) fn resource_of(kind: &Kind) -> ResourceName {
    let (group, resource) = kind.storage().unwrap_or(kind).resource_name();
    ResourceName::new(group, resource)
}

/// Answers a list.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &Call,
    kind: &'static Kind,
    namespace: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let renderer = Renderer::of(kind, call)?;
    let selection = Selection::parse(kind, &call.query)?;
    let limit = call
        .query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let (snapshot, after) = start(server, call, limit.is_some()).await?;
    let after = after
        .as_ref()
        .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    let page = page(&snapshot, &resource_of(kind), namespace, &selection, after, limit);
    let mut meta = ListMeta {
        revision: snapshot.revision(),
        remaining: page.remaining,
        continue_token: None,
    };
    if let Some(last) = page.more_after {
        meta.continue_token = Some(Position::after(snapshot.revision(), &last).encode());
        server.recent().keep(snapshot);
    }
    Ok(body(renderer, &meta, page.objects))
}

/// The moment that a request lists, and after which object.
async fn start(
    server: &ApiServer,
    call: &Call,
    limited: bool,
) -> Result<(Snapshot, Option<(String, String)>), Failure> {
    let replica = server.resources().replica();
    let Some(token) = call.query.get("continue") else {
        let wanted = wanted(&call.query, limited)?;
        return Ok((snapshot_at(replica, server.recent(), wanted).await?, None));
    };
    if call
        .query
        .get("resourceVersion")
        .is_some_and(|version| version != "0")
    {
        return Err(
            Status::bad_request("specifying resource version is not allowed when using continue").into(),
        );
    }
    let position = Position::decode(token)?;
    let after = Some(position.key());
    let Some(revision) = position.revision() else {
        return Ok((
            snapshot_at(replica, server.recent(), Wanted::Latest).await?,
            after,
        ));
    };
    let local = replica.snapshot();
    let kept = if local.revision() == revision {
        Some(local)
    } else {
        server.recent().find(revision)
    };
    match kept {
        Some(snapshot) => Ok((snapshot, after)),
        None => Err(Failure::expired_list(
            EXPIRED_CONTINUE,
            position.inconsistent().encode(),
        )),
    }
}

const EXPIRED_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to retrieve \
    the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that \
    were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Objects that were picked.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Stored>>,
    /// The last object of the page, when others follow.
    more_after: Option<Key>,
    /// How many follow, when that is known.
    remaining: Option<usize>,
}

/// Picks objects, at most `limit`.
pub(crate) fn page(
    snapshot: &Snapshot,
    resource: &ResourceName,
    namespace: Option<&str>,
    selection: &Selection,
    after: Option<(&str, &str)>,
    limit: Option<usize>,
) -> Page {
    if let (Some(name), Some(namespace), None) = (selection.name(), namespace, after) {
        let key = Key::new(resource.clone(), namespace, name);
        let found = snapshot.get(&key).filter(|object| selection.picks(object));
        return Page {
            objects: found.cloned().into_iter().collect(),
            more_after: None,
            remaining: None,
        };
    }
    let everything = selection.is_everything();
    let limit = limit.unwrap_or(usize::MAX);
    let mut all = snapshot.list(resource, namespace, after);
    let picked = all
        .by_ref()
        .filter(|object| everything || selection.picks(object));
    let objects: Vec<Arc<Stored>> = picked.take(limit).cloned().collect();
    let rest = if objects.len() < limit { 0 } else { all.count() };
    let more_after = objects.last().filter(|_| rest > 0).map(|last| last.key.clone());
    Page {
        more_after,
        remaining: (everything && rest > 0).then_some(rest),
        objects,
    }
}

/// The list, rendered while it is sent.
pub(crate) fn body(renderer: Renderer, meta: &ListMeta, objects: Vec<Arc<Stored>>) -> Response<Body> {
    let start = Bytes::from(renderer.list_start(meta));
    let mut first = true;
    let items = objects
        .into_iter()
        .filter_map(move |object| renderer.item(&object))
        .flat_map(move |item| {
            let comma = if std::mem::take(&mut first) {
                Bytes::new()
            } else {
                Bytes::from_static(b",")
            };
            [comma, item]
        });
    let parts = std::iter::once(start)
        .chain(items)
        .chain(std::iter::once(Bytes::from_static(LIST_END)));
    let mut response = json_response(StatusCode::OK, Bytes::new());
    *response.body_mut() = Body::pieces(Coalesced::new(parts));
    response
}
