//! Metadata: what users may set, what may change, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::field::{FieldErrors, Path, Verbatim};
use crate::names::{self, NameRule};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const STANDARD_FINALIZERS: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];
const IMMUTABLE: &str = "field is immutable";

/// The owner that controls the object, of which there is at most one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_deref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Drops what only the server sets.
pub(crate) fn prepare_create(meta: &mut ObjectMeta) {
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    drop_empty(meta);
}

/// Keeps what only the server sets, where the writer has left it out.
pub(crate) fn prepare_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.self_link = None;
    new.generate_name.clone_from(&old.generate_name);
    keep(&mut new.name, &old.name);
    keep(&mut new.namespace, &old.namespace);
    keep(&mut new.uid, &old.uid);
    keep(&mut new.creation_timestamp, &old.creation_timestamp);
    keep(&mut new.deletion_timestamp, &old.deletion_timestamp);
    keep(
        &mut new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    drop_empty(new);
}

fn keep<T: Clone>(new: &mut Option<T>, old: &Option<T>) {
    if new.is_none() {
        new.clone_from(old);
    }
}

/// Empty maps and lists are stored as absent, as Kubernetes does.
fn drop_empty(meta: &mut ObjectMeta) {
    meta.labels = meta.labels.take().filter(|map| !map.is_empty());
    meta.annotations = meta.annotations.take().filter(|map| !map.is_empty());
    meta.finalizers = meta.finalizers.take().filter(|list| !list.is_empty());
    meta.owner_references = meta.owner_references.take().filter(|list| !list.is_empty());
}

/// What is wrong with an object's metadata.
pub(crate) fn validate(meta: &ObjectMeta, namespaced: bool, rule: NameRule, errors: &mut FieldErrors) {
    let path = Path::root("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        let example = match prefix.strip_suffix('-') {
            Some(stem) => format!("{stem}a"),
            None => prefix.to_owned(),
        };
        for problem in rule(&example) {
            errors.invalid(path.child("generateName"), prefix, problem);
        }
    }
    match meta.name.as_deref() {
        None | Some("") => errors.required(path.child("name"), "name or generateName is required"),
        Some(name) => {
            for problem in rule(name) {
                errors.invalid(path.child("name"), name, problem);
            }
        }
    }
    validate_namespace(meta.namespace.as_deref().unwrap_or_default(), namespaced, errors);
    validate_labels(meta.labels.as_ref(), path.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), path.child("annotations"), errors);
    validate_owners(meta.owner_references.as_deref().unwrap_or_default(), errors);
    validate_finalizers(meta.finalizers.as_deref().unwrap_or_default(), errors);
}

fn validate_namespace(namespace: &str, namespaced: bool, errors: &mut FieldErrors) {
    let metadata = Path::root("metadata");
    let path = metadata.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.required(path, ""),
        (true, name) => {
            for problem in names::label(name) {
                errors.invalid(path, name, problem);
            }
        }
        (false, "") => {}
        (false, _) => errors.forbidden(path, "not allowed on this type"),
    }
}

/// What is wrong with labels.
pub(crate) fn validate_labels(
    labels: Option<&BTreeMap<String, String>>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    for (key, value) in labels.into_iter().flatten() {
        for problem in names::qualified(key) {
            errors.invalid(path, key, problem);
        }
        for problem in names::label_value(value) {
            errors.invalid(path.key(key), value, problem);
        }
    }
}

/// What is wrong with annotations.
pub(crate) fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        bytes += key.len() + value.len();
        for problem in names::qualified(&key.to_lowercase()) {
            errors.invalid(path, key, problem);
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(owners: &[OwnerReference], errors: &mut FieldErrors) {
    let metadata = Path::root("metadata");
    let path = metadata.child("ownerReferences");
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        if owner.api_version.is_empty() {
            errors.invalid(
                path.child("apiVersion"),
                &owner.api_version,
                "version must not be empty",
            );
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(path.child(field), value, "must not be empty");
            }
        }
        if owner.controller != Some(true) {
            continue;
        }
        if let Some(other) = controller {
            let names = (&other.kind, &owner.kind);
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                names.0, names.1
            );
            errors.invalid(path, Verbatim(format!("{} {}", owner.kind, owner.name)), detail);
        }
        controller = Some(owner);
    }
}

fn validate_finalizers(finalizers: &[String], errors: &mut FieldErrors) {
    let metadata = Path::root("metadata");
    let path = metadata.child("finalizers");
    let known: BTreeSet<&str> = finalizers.iter().map(String::as_str).collect();
    for finalizer in finalizers {
        for problem in names::qualified(finalizer) {
            errors.invalid(path, finalizer, problem);
        }
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.as_str()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(path, finalizer, detail);
        }
    }
    if known.contains("orphan") && known.contains("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, Verbatim(format!("{finalizers:?}")), detail);
    }
}

/// What may not change in an object's metadata.
pub(crate) fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let path = Path::root("metadata");
    for (field, new, old) in [
        ("name", &new.name, &old.name),
        ("namespace", &new.namespace, &old.namespace),
        ("uid", &new.uid, &old.uid),
    ] {
        if new != old {
            errors.invalid(path.child(field), new.as_deref().unwrap_or_default(), IMMUTABLE);
        }
    }
    for (field, new, old) in [
        (
            "creationTimestamp",
            &new.creation_timestamp,
            &old.creation_timestamp,
        ),
        (
            "deletionTimestamp",
            &new.deletion_timestamp,
            &old.deletion_timestamp,
        ),
    ] {
        let seconds = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            time.as_ref().map(|time| time.0.as_second())
        };
        if seconds(new) != seconds(old) {
            let shown = new.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
            errors.invalid(path.child(field), shown, IMMUTABLE);
        }
    }
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let added = new
            .finalizers
            .iter()
            .flatten()
            .filter(|one| !before.contains(one));
        let added: Vec<String> = added.map(|one| format!("{one:?}")).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(path.child("finalizers"), detail);
        }
    }
}
