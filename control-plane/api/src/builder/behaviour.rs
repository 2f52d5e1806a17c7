//! A kind's functions behind an interface without its type.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::Value;

use super::{FieldAccess, KindType, View};
use crate::decode::{self, Decoded, FieldValidation};
use crate::field::{FieldError, FieldErrors};
use crate::kind::Kind;
use crate::metadata;
use crate::names::NameRule;
use crate::object::Object;
use crate::status::Status;

/// A kind's behaviour without its type; the only implementation is [`Behaviour`].
pub(crate) trait Operations: Send + Sync {
    fn decode(&self, kind: &Kind, json: &[u8], validation: FieldValidation) -> Result<Decoded, Status>;
    fn decode_value(&self, kind: &Kind, value: Value, validation: FieldValidation)
    -> Result<Decoded, Status>;
    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, Status>;
    fn storage(&self) -> Option<&'static Kind>;
    fn to_storage(&self, object: Box<dyn Object>) -> Box<dyn Object>;
    fn shown(&self, object: Box<dyn Object>) -> Box<dyn Object>;
    fn set_defaults(&self, object: &mut dyn Object);
    fn prepare_create(&self, object: &mut dyn Object);
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn prepare_part_update(&self, part: &str, new: &mut dyn Object, old: &dyn Object);
    fn validate_part_update(
        &self,
        kind: &Kind,
        part: &str,
        new: &dyn Object,
        old: &dyn Object,
    ) -> Vec<FieldError>;
    fn validate(&self, kind: &Kind, object: &dyn Object) -> Vec<FieldError>;
    fn validate_update(&self, kind: &Kind, new: &dyn Object, old: &dyn Object) -> Vec<FieldError>;
    fn graceful_deletion(&self, object: &dyn Object, requested: Option<i64>) -> i64;
    fn has_own_finalizers(&self, object: &dyn Object) -> bool;
    fn begin_deletion(&self, object: &mut dyn Object);
    fn scale(&self, object: &dyn Object) -> Option<Scale>;
    fn set_scale(&self, object: &mut dyn Object, replicas: i32);
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    fn field_labels(&self) -> Vec<&'static str>;
}

type Change<T> = Box<dyn Fn(&mut T, &T) + Send + Sync>;
type Clear<T> = Box<dyn Fn(&mut T) + Send + Sync>;
type Differs<T> = Box<dyn Fn(&T, &T) -> bool + Send + Sync>;

pub(super) struct StatusAccess<T> {
    pub(super) clear: Clear<T>,
    pub(super) cleared_on_create: bool,
    pub(super) copy: Change<T>,
}

pub(super) struct ScaleAccess<T> {
    pub(super) get: fn(&T) -> Scale,
    pub(super) set: fn(&mut T, i32),
}

/// A part of the desired state that only its own path changes.
pub(crate) struct PartRule<T> {
    /// The subresource's name.
    pub(crate) name: &'static str,
    /// Takes the part over from the second object into the first.
    pub(crate) take: fn(&mut T, &T),
    /// What may not change about it.
    pub(crate) validate: fn(&T, &T, &mut FieldErrors),
}

pub(super) struct Behaviour<T: 'static> {
    pub(super) name_rule: NameRule,
    pub(super) defaults: fn(&mut T),
    pub(super) create: fn(&mut T),
    pub(super) update: fn(&mut T, &T),
    pub(super) status_update: fn(&mut T, &T),
    pub(super) status: Option<StatusAccess<T>>,
    pub(super) spec_differs: Option<Differs<T>>,
    pub(super) validate: fn(&T, &mut FieldErrors),
    pub(super) validate_new: fn(&T, &mut FieldErrors),
    pub(super) validate_update: fn(&T, &T, &mut FieldErrors),
    pub(super) grace: fn(&T, Option<i64>) -> i64,
    pub(super) own_finalizers: fn(&T) -> bool,
    pub(super) begin_deletion: fn(&mut T),
    pub(super) scale: Option<ScaleAccess<T>>,
    pub(super) parts: &'static [PartRule<T>],
    pub(super) cells: fn(&T, Timestamp) -> Vec<Value>,
    pub(super) fields: &'static [FieldAccess<T>],
    pub(super) view: Option<View>,
}

fn typed<T: KindType>(object: &dyn Object) -> &T {
    object
        .as_any()
        .downcast_ref()
        .expect("an object is given to its own kind")
}

fn typed_mut<T: KindType>(object: &mut dyn Object) -> &mut T {
    object
        .as_any_mut()
        .downcast_mut()
        .expect("an object is given to its own kind")
}

impl<T: KindType> Behaviour<T> {
    fn part(&self, name: &str) -> Option<&'static PartRule<T>> {
        self.parts.iter().find(|rule| rule.name == name)
    }
}

impl<T: KindType> Operations for Behaviour<T> {
    fn decode(&self, kind: &Kind, json: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
        decode::from_slice::<T>(kind, json, validation)
    }

    fn decode_value(
        &self,
        kind: &Kind,
        value: Value,
        validation: FieldValidation,
    ) -> Result<Decoded, Status> {
        decode::from_value::<T>(kind, value, validation)
    }

    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, Status> {
        match serde_json::from_slice::<T>(json) {
            Ok(object) => Ok(Box::new(object)),
            Err(error) => Err(Status::internal(format!(
                "stored {} is damaged: {error}",
                T::KIND
            ))),
        }
    }

    fn storage(&self) -> Option<&'static Kind> {
        self.view.as_ref().map(|view| (view.storage)())
    }

    fn to_storage(&self, object: Box<dyn Object>) -> Box<dyn Object> {
        match &self.view {
            Some(view) => (view.to_storage)(object),
            None => object,
        }
    }

    fn shown(&self, object: Box<dyn Object>) -> Box<dyn Object> {
        match &self.view {
            Some(view) => (view.from_storage)(object),
            None => object,
        }
    }

    fn set_defaults(&self, object: &mut dyn Object) {
        (self.defaults)(typed_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        metadata::prepare_create(object.meta_mut());
        object.meta_mut().generation = self.spec_differs.as_ref().map(|_| 1);
        let object = typed_mut(object);
        if let Some(status) = self.status.as_ref().filter(|status| status.cleared_on_create) {
            (status.clear)(object);
        }
        (self.create)(object);
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        metadata::prepare_update(new.meta_mut(), old.meta());
        let (new, old): (&mut T, &T) = (typed_mut(new), typed(old));
        if let Some(status) = &self.status {
            (status.copy)(new, old);
        }
        (self.update)(new, old);
        new.metadata_mut().generation = old.metadata().generation;
        if let Some(differs) = &self.spec_differs {
            let deletion_begins =
                new.metadata().deletion_timestamp.is_some() && old.metadata().deletion_timestamp.is_none();
            if deletion_begins || differs(new, old) {
                new.metadata_mut().generation = Some(old.metadata().generation.unwrap_or(0) + 1);
            }
        }
    }

    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        metadata::prepare_update(new.meta_mut(), old.meta());
        let (new, old): (&mut T, &T) = (typed_mut(new), typed(old));
        let mut result = old.clone();
        if let Some(status) = &self.status {
            (status.copy)(&mut result, new);
        }
        std::mem::swap(result.metadata_mut(), new.metadata_mut());
        result.metadata_mut().generation = old.metadata().generation;
        (self.status_update)(&mut result, old);
        *new = result;
    }

    fn prepare_part_update(&self, part: &str, new: &mut dyn Object, old: &dyn Object) {
        (self.defaults)(typed_mut(new));
        let mut result = typed::<T>(old).clone();
        if let Some(rule) = self.part(part) {
            (rule.take)(&mut result, typed(new));
        }
        // A precondition on the version was checked; everything else of the metadata stays as it is.
        *typed_mut(new) = result;
        self.prepare_update(new, old);
    }

    fn validate_part_update(
        &self,
        kind: &Kind,
        part: &str,
        new: &dyn Object,
        old: &dyn Object,
    ) -> Vec<FieldError> {
        let mut errors = FieldErrors::default();
        metadata::validate(new.meta(), kind.namespaced, self.name_rule, &mut errors);
        (self.validate)(typed(new), &mut errors);
        if let Some(rule) = self.part(part) {
            (rule.validate)(typed(new), typed(old), &mut errors);
        }
        errors.into_vec()
    }

    fn validate(&self, kind: &Kind, object: &dyn Object) -> Vec<FieldError> {
        let mut errors = FieldErrors::default();
        metadata::validate(object.meta(), kind.namespaced, self.name_rule, &mut errors);
        (self.validate)(typed(object), &mut errors);
        (self.validate_new)(typed(object), &mut errors);
        errors.into_vec()
    }

    fn validate_update(&self, kind: &Kind, new: &dyn Object, old: &dyn Object) -> Vec<FieldError> {
        let mut errors = FieldErrors::default();
        metadata::validate(new.meta(), kind.namespaced, self.name_rule, &mut errors);
        metadata::validate_update(new.meta(), old.meta(), &mut errors);
        (self.validate)(typed(new), &mut errors);
        (self.validate_update)(typed(new), typed(old), &mut errors);
        errors.into_vec()
    }

    fn graceful_deletion(&self, object: &dyn Object, requested: Option<i64>) -> i64 {
        (self.grace)(typed(object), requested)
    }

    fn has_own_finalizers(&self, object: &dyn Object) -> bool {
        (self.own_finalizers)(typed(object))
    }

    fn begin_deletion(&self, object: &mut dyn Object) {
        (self.begin_deletion)(typed_mut(object));
    }

    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        self.scale.as_ref().map(|scale| (scale.get)(typed(object)))
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) {
        if let Some(scale) = &self.scale {
            (scale.set)(typed_mut(object), replicas);
        }
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        (self.cells)(typed(object), now)
    }

    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        let object = typed(object);
        self.fields
            .iter()
            .map(|(name, get)| (*name, get(object)))
            .collect()
    }

    fn field_labels(&self) -> Vec<&'static str> {
        self.fields.iter().map(|(name, _)| *name).collect()
    }
}
