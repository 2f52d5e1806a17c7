//! All kinds, and how they are found.

use std::any::Any;
use std::sync::LazyLock;

use k8s_openapi::Resource;

use crate::kind::Kind;
use crate::kinds;

/// All kinds that the API server knows.
pub struct Registry {
    kinds: Vec<Kind>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry { kinds: kinds::all() });

/// The kinds of this build.
pub fn registry() -> &'static Registry {
    &REGISTRY
}

impl Registry {
    /// Every kind, core group first.
    pub fn all(&self) -> impl Iterator<Item = &Kind> + Clone {
        self.kinds.iter()
    }

    /// The kind behind a URL.
    pub fn by_resource(&self, group: &str, version: &str, resource: &str) -> Option<&Kind> {
        self.all()
            .find(|kind| (kind.group, kind.version, kind.resource) == (group, version, resource))
    }

    /// The kind of a manifest.
    pub fn by_kind(&self, group: &str, version: &str, name: &str) -> Option<&Kind> {
        self.all()
            .find(|kind| (kind.group, kind.version, kind.kind) == (group, version, name))
    }

    /// The kind of a type.
    ///
    /// # Panics
    /// When the type is not in the registry, which the callers' tests show at once.
    pub fn of<T: Resource + Any>(&self) -> &Kind {
        let found = self.by_kind(T::GROUP, T::VERSION, T::KIND);
        found.unwrap_or_else(|| panic!("{} {} is not in the registry", T::API_VERSION, T::KIND))
    }

    /// Group and version pairs, core group first, each once.
    pub fn groups(&self) -> Vec<(&'static str, &'static str)> {
        let mut groups = Vec::new();
        for kind in self.all() {
            if !groups.contains(&(kind.group, kind.version)) {
                groups.push((kind.group, kind.version));
            }
        }
        groups
    }
}
