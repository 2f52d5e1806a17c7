//! What is in a namespace that is on its way out.
//!
//! *Assumes* that nothing new can be created in it: creating checks the namespace in the same transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_api::{Kind, Status, registry};
use flotilla_resources::{DeleteOptions, Propagation};
use flotilla_store::Stored;
use futures::StreamExt;
use futures::stream;

use crate::context::{Context, unless_gone};
use crate::follow::{meta_of, resource_name};

/// Deletions under way at once.
const DELETIONS_MAX: usize = 64;

/// What still is in the namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Objects by resource, as `pods.` or `deployments.apps`.
    pub(crate) resources: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Left {
    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

fn kinds() -> impl Iterator<Item = &'static Kind> {
    registry()
        .all()
        .filter(|kind| kind.namespaced && kind.storage().is_none() && !kind.computed)
}

/// Deletes everything that is not being deleted already.
pub(crate) async fn delete_all(ctx: &Context, namespace: &str) -> Result<(), Status> {
    let snapshot = ctx.resources.replica().snapshot();
    for kind in kinds() {
        let resource = resource_name(kind);
        let objects = snapshot.list(&resource, Some(namespace), None);
        let doomed =
            objects.filter(|stored| meta_of(stored).is_some_and(|meta| meta.deletion_timestamp.is_none()));
        let doomed: Vec<Arc<Stored>> = doomed.cloned().collect();
        let deletions = stream::iter(doomed).map(|stored| delete(ctx, kind, stored));
        let outcomes: Vec<Result<(), Status>> = deletions.buffer_unordered(DELETIONS_MAX).collect().await;
        outcomes.into_iter().collect::<Result<(), Status>>()?;
    }
    Ok(())
}

async fn delete(ctx: &Context, kind: &'static Kind, stored: Arc<Stored>) -> Result<(), Status> {
    let options = DeleteOptions {
        propagation: Some(Propagation::Background),
        ..DeleteOptions::default()
    };
    unless_gone(
        ctx.resources
            .delete(kind, &stored.key.namespace, &stored.key.name, &options)
            .await,
    )
    .map(drop)
}

/// Counts what is there now.
pub(crate) fn left(ctx: &Context, namespace: &str) -> Left {
    let snapshot = ctx.resources.replica().snapshot();
    let mut left = Left::default();
    for kind in kinds() {
        for stored in snapshot.list(&resource_name(kind), Some(namespace), None) {
            *left
                .resources
                .entry(format!("{}.{}", kind.resource, kind.group))
                .or_default() += 1;
            for finalizer in meta_of(stored).into_iter().flat_map(|meta| meta.finalizers) {
                *left.finalizers.entry(finalizer).or_default() += 1;
            }
        }
    }
    left
}
