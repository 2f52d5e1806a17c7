//! Deleting objects: at once, gracefully, or held back by finalizers.

use std::sync::Arc;

use flotilla_api::{Kind, Object, Status, system_priority_classes};
use flotilla_store::Stored;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{Resources, WriteOptions, create::now, propose::Change, resources::key};

/// Waits until the dependents are gone.
const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// Waits until the dependents have been let go.
const FINALIZER_ORPHAN: &str = "orphan";

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete; the body of a delete request.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Instead of the object's own grace; zero is at once.
    pub grace_seconds: Option<i64>,
    /// What becomes of dependents; `None` is the finalizers that the object has, else background.
    pub propagation: Option<Propagation>,
    /// Only this object, not another of its name.
    pub uid: Option<String>,
    /// Only this state of it.
    pub resource_version: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What became of a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Stored>),
    /// It is marked, and waits for its grace or its finalizers.
    Pending(Arc<Stored>),
}

impl Resources {
    /// Deletes an object, or marks it for deletion if something has to happen first.
    pub async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let write = WriteOptions {
            dry_run: options.dry_run,
            ..WriteOptions::default()
        };
        let changed = self
            .change(kind, &key(kind, namespace, name), &write, |current| {
                let object = kind.decode_stored(&current.json)?;
                check_mortal(kind, &*object)?;
                check_preconditions(kind, &*object, current, options)?;
                Ok(deletion(kind, object, options, &now()))
            })
            .await?;
        Ok(match changed.is_gone() {
            true => Deleted::Gone(changed.into_object()),
            false => Deleted::Pending(changed.into_object()),
        })
    }
}

/// Namespaces that every cluster has, as Kubernetes' own admission keeps them.
const NAMESPACES_KEPT: [&str; 3] = ["default", "kube-public", "kube-system"];

fn check_mortal(kind: &Kind, object: &dyn Object) -> Result<(), Status> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    if object.as_any().is::<Namespace>() && NAMESPACES_KEPT.contains(&name) {
        return Err(Status::forbidden(kind, name, "this namespace may not be deleted"));
    }
    if object.as_any().is::<PriorityClass>() && is_own_class(name) {
        let why = "this is a system priority class and cannot be deleted";
        return Err(Status::forbidden(kind, name, why));
    }
    Ok(())
}

fn is_own_class(name: &str) -> bool {
    system_priority_classes()
        .iter()
        .any(|class| class.metadata.name.as_deref() == Some(name))
}

fn check_preconditions(
    kind: &Kind,
    object: &dyn Object,
    current: &Stored,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    let found = object.meta().uid.as_deref().unwrap_or_default();
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != found) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
        return Err(Status::conflict(kind, name, &why));
    }
    let version = current.modified.to_string();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(Status::conflict(kind, name, &why));
    }
    Ok(())
}

/// What deleting `object` now means.
fn deletion(kind: &Kind, mut object: Box<dyn Object>, options: &DeleteOptions, now: &Time) -> Change {
    settle_finalizers(&mut *object, options.propagation);
    let grace = remaining_grace(kind, &*object, options.grace_seconds);
    let meta = object.meta();
    if grace == 0 && !kind.has_finalizers(&*object) {
        return Change::Delete;
    }
    let marked_already = meta.deletion_timestamp.is_some();
    if !marked_already || Some(grace) < meta.deletion_grace_period_seconds {
        mark(kind, &mut *object, grace, now);
    }
    Change::Put(object)
}

/// The grace that a deletion gives; a second one may only shorten what the first gave.
fn remaining_grace(kind: &Kind, object: &dyn Object, requested: Option<i64>) -> i64 {
    let wanted = kind.graceful_deletion(object, requested).max(0);
    match (
        &object.meta().deletion_timestamp,
        object.meta().deletion_grace_period_seconds,
    ) {
        (Some(_), Some(given)) if requested.is_none() => given,
        (Some(_), Some(given)) => wanted.min(given),
        _ => wanted,
    }
}

fn mark(kind: &Kind, object: &mut dyn Object, grace_seconds: i64, now: &Time) {
    let meta = object.meta_mut();
    let end = now.0 + jiff::SignedDuration::from_secs(grace_seconds);
    meta.deletion_timestamp = Some(Time(end));
    meta.deletion_grace_period_seconds = Some(grace_seconds);
    if let Some(generation) = &mut meta.generation {
        *generation += 1;
    }
    kind.begin_deletion(object);
}

fn settle_finalizers(object: &mut dyn Object, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    finalizers.retain(|name| name != FINALIZER_FOREGROUND && name != FINALIZER_ORPHAN);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FINALIZER_FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(FINALIZER_ORPHAN.to_owned()),
    }
    if finalizers.is_empty() {
        object.meta_mut().finalizers = None;
    }
}

#[cfg(test)]
mod tests {
    use flotilla_api::registry;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec};

    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn told(change: Change) -> String {
        match change {
            Change::Keep => "keep".into(),
            Change::Delete => "delete".into(),
            Change::Put(object) => {
                let meta = object.meta();
                let end = meta.deletion_timestamp.as_ref().map(|time| time.0.as_second());
                format!(
                    "end {end:?} finalizers {:?}",
                    meta.finalizers.clone().unwrap_or_default()
                )
            }
        }
    }

    fn pod() -> Pod {
        Pod {
            spec: Some(PodSpec {
                node_name: Some("n".into()),
                termination_grace_period_seconds: Some(30),
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn a_plain_object_goes_at_once() {
        let change = deletion(
            registry().of::<ConfigMap>(),
            Box::new(ConfigMap::default()),
            &DeleteOptions::default(),
            &at(100),
        );
        assert_eq!(told(change), "delete");
    }

    #[test]
    fn propagation_becomes_a_finalizer_that_holds_the_object() {
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let change = deletion(
            registry().of::<ConfigMap>(),
            Box::new(ConfigMap::default()),
            &options,
            &at(100),
        );
        assert_eq!(told(change), r#"end Some(100) finalizers ["foregroundDeletion"]"#);
    }

    #[test]
    fn a_running_pod_gets_its_grace_which_may_only_shrink() {
        let kind = registry().of::<Pod>();
        let first = deletion(kind, Box::new(pod()), &DeleteOptions::default(), &at(100));
        let Change::Put(marked) = first else {
            panic!("the pod is gone")
        };
        assert_eq!(told(Change::Put(marked.clone())), "end Some(130) finalizers []");
        let longer = DeleteOptions {
            grace_seconds: Some(60),
            ..DeleteOptions::default()
        };
        assert_eq!(
            told(deletion(kind, marked.clone(), &longer, &at(101))),
            "end Some(130) finalizers []"
        );
        let shorter = DeleteOptions {
            grace_seconds: Some(5),
            ..DeleteOptions::default()
        };
        assert_eq!(
            told(deletion(kind, marked.clone(), &shorter, &at(101))),
            "end Some(106) finalizers []"
        );
        let now = DeleteOptions {
            grace_seconds: Some(0),
            ..DeleteOptions::default()
        };
        assert_eq!(told(deletion(kind, marked, &now, &at(101))), "delete");
    }
}
