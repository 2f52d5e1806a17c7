//! Puts a [`Kind`] together from the typed functions of its file.

mod behaviour;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ListableResource, Metadata};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use behaviour::{Behaviour, ScaleAccess, StatusAccess};
pub(crate) use behaviour::{Operations, PartRule};

use crate::duration;
use crate::field::FieldErrors;
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::names::{self, NameRule};
use crate::object::Object;

/// Types that can be kinds.
pub(crate) trait KindType:
    ListableResource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Default + Object + Clone
{
}

impl<T> KindType for T where
    T: ListableResource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Default + Object + Clone
{
}

/// A field behind a name, for field selectors.
pub(crate) type FieldAccess<T> = (&'static str, fn(&T) -> String);

/// Another view of a stored kind.
pub(crate) struct View {
    pub(crate) storage: fn() -> &'static Kind,
    pub(crate) to_storage: fn(Box<dyn Object>) -> Box<dyn Object>,
    pub(crate) from_storage: fn(Box<dyn Object>) -> Box<dyn Object>,
}

/// Describes a kind; everything but the names has a default.
pub(crate) struct Builder<T: 'static> {
    kind: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [SubresourceInfo],
    columns: &'static [Column],
    singular: &'static str,
    computed: bool,
    behaviour: Behaviour<T>,
}

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn name_and_age<T: KindType>(object: &T, now: Timestamp) -> Vec<Value> {
    vec![name_cell(object.metadata()), age_cell(object.metadata(), now)]
}

/// The cell of the name's column.
pub(crate) fn name_cell(meta: &ObjectMeta) -> Value {
    meta.name.clone().unwrap_or_default().into()
}

/// The cell of the age's column.
pub(crate) fn age_cell(meta: &ObjectMeta, now: Timestamp) -> Value {
    duration::age(meta.creation_timestamp.as_ref().map(|time| time.0), now).into()
}

impl<T: KindType> Builder<T> {
    /// A namespaced kind; its plural is in the type.
    pub(crate) fn namespaced(singular: &'static str) -> Self {
        Self {
            kind: T::KIND,
            short_names: &[],
            categories: &[],
            namespaced: true,
            verbs: VERBS,
            subresources: &[],
            columns: &[Column::NAME, Column::AGE],
            singular,
            computed: false,
            behaviour: Behaviour {
                name_rule: names::subdomain,
                defaults: |_| {},
                create: |_| {},
                update: |_, _| {},
                status_update: |_, _| {},
                status: None,
                spec_differs: None,
                validate: |_, _| {},
                validate_new: |_, _| {},
                validate_update: |_, _, _| {},
                grace: |_, _| 0,
                own_finalizers: |_| false,
                begin_deletion: |_| {},
                scale: None,
                parts: &[],
                cells: name_and_age::<T>,
                fields: &[],
                view: None,
            },
        }
    }

    /// A kind outside of namespaces.
    pub(crate) fn cluster_scoped(singular: &'static str) -> Self {
        Self {
            namespaced: false,
            ..Self::namespaced(singular)
        }
    }

    pub(crate) fn short_names(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    pub(crate) fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    /// What can be done with it, where that is less than everything.
    pub(crate) fn verbs(self, verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..self }
    }

    pub(crate) fn subresources(self, subresources: &'static [SubresourceInfo]) -> Self {
        Self { subresources, ..self }
    }

    pub(crate) fn columns(
        mut self,
        columns: &'static [Column],
        cells: fn(&T, Timestamp) -> Vec<Value>,
    ) -> Self {
        self.columns = columns;
        self.behaviour.cells = cells;
        self
    }

    pub(crate) fn name_rule(mut self, rule: NameRule) -> Self {
        self.behaviour.name_rule = rule;
        self
    }

    pub(crate) fn defaults(mut self, defaults: fn(&mut T)) -> Self {
        self.behaviour.defaults = defaults;
        self
    }

    /// What users may not set on new objects, beyond metadata and status.
    pub(crate) fn on_create(mut self, create: fn(&mut T)) -> Self {
        self.behaviour.create = create;
        self
    }

    /// What an update may not touch, beyond metadata and status.
    pub(crate) fn on_update(mut self, update: fn(&mut T, &T)) -> Self {
        self.behaviour.update = update;
        self
    }

    /// What metadata a status update may not touch.
    pub(crate) fn on_status_update(mut self, update: fn(&mut T, &T)) -> Self {
        self.behaviour.status_update = update;
        self
    }

    /// The status, which only its own path writes. New objects have an empty one: clients may rely on its being there.
    pub(crate) fn status<S: Clone + Default + 'static>(
        mut self,
        get: fn(&T) -> &Option<S>,
        get_mut: fn(&mut T) -> &mut Option<S>,
    ) -> Self {
        self.behaviour.status = Some(StatusAccess {
            clear: Box::new(move |object| *get_mut(object) = Some(S::default())),
            cleared_on_create: true,
            copy: Box::new(move |to, from| *get_mut(to) = get(from).clone()),
        });
        self
    }

    /// Lets new objects come with a status, as nodes do.
    pub(crate) fn keep_status_on_create(mut self) -> Self {
        if let Some(status) = &mut self.behaviour.status {
            status.cleared_on_create = false;
        }
        self
    }

    /// The desired state, whose changes count the generation on.
    pub(crate) fn generation<S: PartialEq + 'static>(mut self, spec: fn(&T) -> &S) -> Self {
        self.behaviour.spec_differs = Some(Box::new(move |a, b| spec(a) != spec(b)));
        self
    }

    pub(crate) fn validate(mut self, validate: fn(&T, &mut FieldErrors)) -> Self {
        self.behaviour.validate = validate;
        self
    }

    /// What only new objects may not have.
    pub(crate) fn validate_new(mut self, validate: fn(&T, &mut FieldErrors)) -> Self {
        self.behaviour.validate_new = validate;
        self
    }

    /// What may not change; the new object is also validated as on creation.
    pub(crate) fn validate_update(mut self, validate: fn(&T, &T, &mut FieldErrors)) -> Self {
        self.behaviour.validate_update = validate;
        self
    }

    pub(crate) fn grace(mut self, grace: fn(&T, Option<i64>) -> i64) -> Self {
        self.behaviour.grace = grace;
        self
    }

    /// How deletion is held up and shown by the object itself.
    pub(crate) fn deletion(mut self, own_finalizers: fn(&T) -> bool, begin: fn(&mut T)) -> Self {
        self.behaviour.own_finalizers = own_finalizers;
        self.behaviour.begin_deletion = begin;
        self
    }

    pub(crate) fn scale(mut self, get: fn(&T) -> Scale, set: fn(&mut T, i32)) -> Self {
        self.behaviour.scale = Some(ScaleAccess { get, set });
        self
    }

    /// Parts of the desired state that have paths of their own.
    pub(crate) fn parts(mut self, parts: &'static [PartRule<T>]) -> Self {
        self.behaviour.parts = parts;
        self
    }

    pub(crate) fn fields(mut self, fields: &'static [FieldAccess<T>]) -> Self {
        self.behaviour.fields = fields;
        self
    }

    pub(crate) fn view(mut self, view: View) -> Self {
        self.behaviour.view = Some(view);
        self
    }

    /// Nothing of it is stored: the API server makes the objects when they are asked for.
    pub(crate) fn computed(self) -> Self {
        Self {
            computed: true,
            ..self
        }
    }

    pub(crate) fn build(self) -> Kind {
        Kind {
            group: T::GROUP,
            version: T::VERSION,
            kind: self.kind,
            list_kind: T::LIST_KIND,
            resource: T::URL_PATH_SEGMENT,
            singular: self.singular,
            short_names: self.short_names,
            categories: self.categories,
            namespaced: self.namespaced,
            verbs: self.verbs,
            subresources: self.subresources,
            columns: self.columns,
            computed: self.computed,
            operations: Box::new(self.behaviour),
        }
    }
}
