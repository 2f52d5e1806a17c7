//! What objects are called and when they changed.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A moment of the store: the number of changes made before it. Zero is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// The moment after one more change.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A collection of objects, for example `("apps", "deployments")`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceName {
    /// The API group, empty for the core group.
    pub group: Arc<str>,
    /// The plural, lower-case name.
    pub resource: Arc<str>,
}

impl ResourceName {
    /// Names a collection.
    pub fn new(group: impl Into<Arc<str>>, resource: impl Into<Arc<str>>) -> ResourceName {
        ResourceName {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.resource)?;
        if self.group.is_empty() {
            Ok(())
        } else {
            write!(formatter, ".{}", self.group)
        }
    }
}

/// Where one object lives. Ordered by resource, then namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The collection that it belongs to.
    pub resource: ResourceName,
    /// Empty when the resource is cluster scoped.
    pub namespace: Arc<str>,
    /// Unique in namespace and resource.
    pub name: Arc<str>,
}

impl Key {
    /// Names one object.
    pub fn new(resource: ResourceName, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key {
            resource,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Bytes of the names, and an allowance for what is kept beside them.
    pub(crate) fn bytes(&self) -> usize {
        const OTHER_BYTES: usize = 32;
        let resource = self.resource.group.len() + self.resource.resource.len();
        resource + self.namespace.len() + self.name.len() + OTHER_BYTES
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(formatter, "{} {}", self.resource, self.name)
        } else {
            write!(formatter, "{} {}/{}", self.resource, self.namespace, self.name)
        }
    }
}
