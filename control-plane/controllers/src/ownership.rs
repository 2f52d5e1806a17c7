//! Adoption and release, the same for every controller and everything that is controlled.
//!
//! *Guarantees*: an object is only changed while it is the one that was looked at, and only adopted while nobody else
//! controls it.

use flotilla_api::{Status, controller_of};
use flotilla_resources::{Part, Resources, TypedObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::context::unless_gone;
use crate::labels::remove_owner;
use crate::runner::ObjectKey;

/// Whether an owner is still there and is to stay. The cache may not know yet that it is gone or going; what it adopts
/// then would be deleted with it.
pub(crate) async fn still_exists<T: TypedObject>(resources: &Resources, owner: &T) -> Result<bool, Status> {
    let key = ObjectKey::of(owner);
    let found = unless_gone(resources.get_typed::<T>(&key.namespace, &key.name).await)?;
    Ok(found.is_some_and(|found| {
        found.metadata().uid == owner.metadata().uid && found.metadata().deletion_timestamp.is_none()
    }))
}

/// Makes `owner` the controller of an object that has none. Nothing when it has one by now, or is gone or going.
pub(crate) async fn adopt<T: TypedObject>(
    resources: &Resources,
    object: &T,
    owner: &OwnerReference,
) -> Result<Option<T>, Status> {
    modify_same(resources, object, |found| {
        let meta = found.metadata_mut();
        let free = controller_of(meta).is_none() && meta.deletion_timestamp.is_none();
        if free {
            meta.owner_references.get_or_insert_default().push(owner.clone());
        }
        free
    })
    .await
}

/// Takes the owner with this uid out of an object.
pub(crate) async fn release<T: TypedObject>(
    resources: &Resources,
    object: &T,
    uid: &str,
) -> Result<Option<T>, Status> {
    modify_same(resources, object, |found| remove_owner(found.metadata_mut(), uid)).await
}

/// Changes the very object that was looked at.
pub(crate) async fn modify_same<T: TypedObject>(
    resources: &Resources,
    object: &T,
    mut change: impl FnMut(&mut T) -> bool,
) -> Result<Option<T>, Status> {
    let key = ObjectKey::of(object);
    let uid = object.metadata().uid.clone();
    resources
        .modify::<T>(&key.namespace, &key.name, Part::Whole, |found| {
            found.metadata().uid == uid && change(found)
        })
        .await
}
