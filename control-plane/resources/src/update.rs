//! Replacing and patching objects.

use std::sync::Arc;

use flotilla_api::{
    Kind, Object, Reason, Status,
    patch::{self, PatchKind},
};
use flotilla_store::Stored;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::Value;

use crate::{
    Part, Resources, WriteOptions, Written,
    create::settle_namespace,
    propose::{Change, Changed},
    resources::key,
};

impl Resources {
    /// Replaces a part of an object. A `resourceVersion` in the body must be the object's current one.
    /// An object that is being deleted goes when its last finalizer does.
    pub async fn update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        object: Box<dyn Object>,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Arc<Stored>, Status> {
        settle_namespace(kind, namespace, object.meta().namespace.as_deref())?;
        settle_name(name, object.meta().name.as_deref())?;
        let changed = self
            .change(kind, &key(kind, namespace, name), options, |current| {
                let old = kind.decode_stored(&current.json)?;
                replaced(kind, &*old, object.clone(), part, current)
            })
            .await?;
        Ok(changed.into_object())
    }

    /// Patches a part of an object. Starts over when somebody else changed the object meanwhile, unless the patch
    /// names a `resourceVersion`.
    #[expect(clippy::too_many_arguments, reason = "a patch request has that many parts")]
    pub async fn patch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch_kind: PatchKind,
        patch: Value,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let mut warnings = Vec::new();
        let changed = self
            .change(kind, &key(kind, namespace, name), options, |current| {
                let old = kind.decode_stored(&current.json)?;
                let (new, told) = patched(kind, &*old, current, patch_kind, &patch, part, options)?;
                warnings = told;
                settle_namespace(kind, namespace, new.meta().namespace.as_deref())?;
                settle_name(name, new.meta().name.as_deref())?;
                replaced(kind, &*old, new, part, current)
            })
            .await?;
        Ok(Written {
            object: changed.into_object(),
            warnings,
            created: false,
        })
    }

    /// Reads an object, lets `change` alter it, and stores it unless `change` says that there is nothing to do.
    pub(crate) async fn change_object(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        part: Part,
        mut change: impl FnMut(&mut dyn Object) -> bool,
    ) -> Result<Option<Arc<Stored>>, Status> {
        let mut altered = false;
        let changed = self
            .change(
                kind,
                &key(kind, namespace, name),
                &WriteOptions::default(),
                |current| {
                    let old = kind.decode_stored(&current.json)?;
                    let mut new = old.clone();
                    altered = change(&mut *new);
                    if altered {
                        replaced(kind, &*old, new, part, current)
                    } else {
                        Ok(Change::Keep)
                    }
                },
            )
            .await;
        match changed {
            Ok(changed) => Ok(altered.then(|| changed.into_object())),
            Err(status) if status.reason == Reason::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// What replacing `old` by `new` means, after all rules of the kind.
fn replaced(
    kind: &'static Kind,
    old: &dyn Object,
    mut new: Box<dyn Object>,
    part: Part,
    current: &Stored,
) -> Result<Change, Status> {
    check_preconditions(kind, old, &*new, current)?;
    match part {
        Part::Whole => {
            // Before the comparison with `old`, or a field left to its default would count as a change.
            kind.set_defaults(&mut *new);
            kind.prepare_update(&mut *new, old);
        }
        Part::Status => kind.prepare_status_update(&mut *new, old),
        Part::Scale => new = scaled(kind, old, &*new)?,
        Part::Named(name) => kind.prepare_part_update(name, &mut *new, old),
    }
    let meta = new.meta_mut();
    meta.resource_version = None;
    meta.managed_fields = None;
    match part {
        Part::Named(name) => kind.validate_part_update(name, &*new, old)?,
        _ => kind.validate_update(&*new, old)?,
    }
    Ok(if is_released(kind, &*new) {
        Change::Delete
    } else {
        Change::Put(new)
    })
}

fn scaled(kind: &'static Kind, old: &dyn Object, scale: &dyn Object) -> Result<Box<dyn Object>, Status> {
    let scale = scale
        .as_any()
        .downcast_ref::<Scale>()
        .ok_or_else(|| Status::bad_request("the body of a scale request must be an autoscaling/v1 Scale"))?;
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let mut new = old.clone_box();
    kind.set_scale(&mut *new, replicas);
    kind.prepare_update(&mut *new, old);
    Ok(new)
}

fn check_preconditions(
    kind: &Kind,
    old: &dyn Object,
    new: &dyn Object,
    current: &Stored,
) -> Result<(), Status> {
    let name = old.meta().name.as_deref().unwrap_or_default();
    let version = new.meta().resource_version.as_deref().unwrap_or_default();
    if !version.is_empty() && version != current.modified.to_string() {
        return Err(Status::modified(kind, name));
    }
    let (wanted, found) = (
        new.meta().uid.as_deref().unwrap_or_default(),
        old.meta().uid.as_deref(),
    );
    if !wanted.is_empty() && Some(wanted) != found {
        let found = found.unwrap_or_default();
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
        return Err(Status::conflict(kind, name, &why));
    }
    Ok(())
}

/// Whether nothing holds back an object that is being deleted.
fn is_released(kind: &Kind, object: &dyn Object) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !kind.has_finalizers(object)
}

fn patched(
    kind: &'static Kind,
    old: &dyn Object,
    current: &Stored,
    patch_kind: PatchKind,
    patch: &Value,
    part: Part,
    options: &WriteOptions,
) -> Result<(Box<dyn Object>, Vec<String>), Status> {
    if part == Part::Scale {
        return Ok((patched_scale(kind, old, current, patch_kind, patch)?, Vec::new()));
    }
    let before: Value = serde_json::from_slice(&current.json).map_err(Status::internal)?;
    let after = patch::apply(kind, patch_kind, &before, patch)?;
    let decoded = kind.decode_value(after, options.field_validation)?;
    Ok((decoded.object, decoded.warnings))
}

fn patched_scale(
    kind: &'static Kind,
    old: &dyn Object,
    current: &Stored,
    patch_kind: PatchKind,
    patch: &Value,
) -> Result<Box<dyn Object>, Status> {
    let mut scale = kind
        .scale(old)
        .ok_or_else(|| Status::not_found(kind, old.meta().name.as_deref().unwrap_or_default()))?;
    scale.metadata.resource_version = Some(current.modified.to_string());
    let before = serde_json::to_value(scale).map_err(Status::internal)?;
    let after = patch::apply(kind, patch_kind, &before, patch)?;
    let scale: Scale =
        serde_json::from_value(after).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(Box::new(scale))
}

fn settle_name(requested: &str, in_body: Option<&str>) -> Result<(), Status> {
    match in_body {
        Some(name) if name != requested => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({requested})"
        ))),
        Some(_) => Ok(()),
        None => Err(Status::bad_request(
            "the name of the object must be given in metadata.name",
        )),
    }
}

impl Changed {
    /// Whether the object is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Changed::Gone(_))
    }
}
