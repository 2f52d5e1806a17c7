//! The same path for concrete types.

use std::{fmt::Debug, sync::Arc};

use flotilla_api::{Object, Status, registry};
use flotilla_store::{Revision, Stored};
use k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};

use crate::{DeleteOptions, Deleted, Part, Resources, WriteOptions, resources::resource_name};

/// A Kubernetes type that is a kind of the registry.
pub trait TypedObject:
    Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Default
    + Send
    + Sync
    + 'static
{
}

impl<T> TypedObject for T where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Default
        + Send
        + Sync
        + 'static
{
}

/// The decoded object, shared by all who read this state of it. `None` when the stored bytes are not a `T`.
pub(crate) fn decoded<T: TypedObject>(stored: &Stored) -> Option<Arc<T>> {
    let decoded = stored.cached(|stored| serde_json::from_slice::<T>(&stored.json).ok().map(Arc::new));
    (*decoded).clone()
}

fn decode<T: TypedObject>(stored: &Stored) -> Result<T, Status> {
    serde_json::from_slice(&stored.json).map_err(Status::internal)
}

fn place<T: TypedObject>(object: &T) -> (String, String) {
    let meta = object.metadata();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl Resources {
    /// Stores a new object in the namespace that it names.
    pub async fn create_typed<T: TypedObject>(&self, object: T) -> Result<T, Status> {
        let (namespace, _) = place(&object);
        let kind = registry().of::<T>();
        let stored = self
            .create(kind, &namespace, Box::new(object), &WriteOptions::default())
            .await?;
        decode(&stored)
    }

    /// An object as it is now (linearizable).
    pub async fn get_typed<T: TypedObject>(&self, namespace: &str, name: &str) -> Result<T, Status> {
        decode(&*self.get(registry().of::<T>(), namespace, name).await?)
    }

    /// Replaces all but the status; the object's `resourceVersion` is a precondition if it is there.
    pub async fn update_typed<T: TypedObject>(&self, object: T) -> Result<T, Status> {
        self.update_part(object, Part::Whole).await
    }

    /// Replaces the status.
    pub async fn update_status_typed<T: TypedObject>(&self, object: T) -> Result<T, Status> {
        self.update_part(object, Part::Status).await
    }

    async fn update_part<T: TypedObject>(&self, object: T, part: Part) -> Result<T, Status> {
        let (namespace, name) = place(&object);
        let kind = registry().of::<T>();
        let stored = self
            .update(
                kind,
                &namespace,
                &name,
                Box::new(object),
                part,
                &WriteOptions::default(),
            )
            .await?;
        decode(&stored)
    }

    /// Deletes an object.
    pub async fn delete_typed<T: TypedObject>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.delete(registry().of::<T>(), namespace, name, options).await
    }

    /// All objects of a type, from this replica's own state, which may be a little old.
    pub fn list_typed<T: TypedObject>(&self, namespace: Option<&str>) -> (Vec<Arc<T>>, Revision) {
        let snapshot = self.replica.snapshot();
        let resource = resource_name(registry().of::<T>());
        let objects = snapshot
            .list(&resource, namespace, None)
            .filter_map(|stored| decoded(stored))
            .collect();
        (objects, snapshot.revision())
    }

    /// Reads an object, lets `change` alter it, and stores it; again if somebody else was faster. `None` when the
    /// object is gone or `change` returned false.
    pub async fn modify<T: TypedObject>(
        &self,
        namespace: &str,
        name: &str,
        part: Part,
        mut change: impl FnMut(&mut T) -> bool,
    ) -> Result<Option<T>, Status> {
        let altered = self
            .change_object(
                registry().of::<T>(),
                namespace,
                name,
                part,
                |object: &mut dyn Object| object.as_any_mut().downcast_mut::<T>().is_some_and(&mut change),
            )
            .await?;
        altered.map(|stored| decode(&stored)).transpose()
    }
}
