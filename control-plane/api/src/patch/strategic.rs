//! Strategic merge: a partial object whose lists are merged by key, with directives.
//!
//! Follows Kubernetes' `strategicpatch` for patches that come from clients: nulls delete, `$patch` replaces or
//! deletes, `$setElementOrder/x` orders a merged list, `$deleteFromPrimitiveList/x` removes scalars from one, and
//! `$retainKeys` clears the fields that are not named.

use serde_json::{Map, Value};

use super::order::{Identity, arrange};
use super::strategy::{Merging, merging};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("error decoding patch: a strategic merge patch is a JSON object")]
    NotAnObject,
    #[error("invalid patch type: {0}")]
    UnknownDirective(String),
    #[error("invalid patch format of {0}, expected a list")]
    DirectiveNotAList(String),
    #[error("invalid patch format of retainKeys: it does not name the field {0}")]
    NotRetained(String),
    #[error("map does not contain declared merge key: {0}")]
    NoMergeKey(&'static str),
    #[error("delete patch type with no merge key defined for the list {0}")]
    NoKeyToDeleteBy(String),
    #[error("the order of {field} given by $setElementOrder does not name the element {element}")]
    NotOrdered { field: String, element: String },
}

/// `current`, an object of the type `schema`, merged with `patch`.
pub(super) fn merge(schema: &str, current: &Value, patch: &Value) -> Result<Value, MergeError> {
    let patch = patch.as_object().ok_or(MergeError::NotAnObject)?;
    let current = current.as_object().cloned().unwrap_or_default();
    merge_object(schema, current, patch.clone()).map(Value::Object)
}

type Object = Map<String, Value>;

fn merge_object(schema: &str, mut current: Object, mut patch: Object) -> Result<Object, MergeError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            Some("merge") => merge_object(schema, current, patch),
            _ => Err(MergeError::UnknownDirective(directive.to_string())),
        };
    }
    retain_keys(&mut current, &mut patch)?;
    merge_ordered_lists(schema, &mut current, &mut patch)?;
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix(DELETE_FROM_LIST) {
            delete_scalars(&mut current, list, &value)?;
        } else {
            merge_field(merging(schema, &field), &mut current, field, value)?;
        }
    }
    Ok(current)
}

fn merge_field(how: Merging, current: &mut Object, field: String, patch: Value) -> Result<(), MergeError> {
    let merged = match (current.remove(&field), patch) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(old)), Value::Object(new)) => {
            Value::Object(merge_object(how.schema.unwrap_or_default(), old, new)?)
        }
        (Some(Value::Array(old)), Value::Array(new)) if how.merges => {
            Value::Array(merge_list(how, &field, old, new)?)
        }
        (_, new) => without_directives(new),
    };
    current.insert(field, merged);
    Ok(())
}

/// Drops from `current` what the patch's `$retainKeys` does not name.
fn retain_keys(current: &mut Object, patch: &mut Object) -> Result<(), MergeError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(MergeError::DirectiveNotAList(RETAIN_KEYS.to_owned()));
    };
    let named = |field: &str| retained.iter().any(|name| name.as_str() == Some(field));
    let stray = patch.iter().find(|(field, value)| {
        !value.is_null()
            && !field.starts_with(DELETE_FROM_LIST)
            && !field.starts_with(SET_ELEMENT_ORDER)
            && !named(field)
    });
    if let Some((field, _)) = stray {
        return Err(MergeError::NotRetained(field.clone()));
    }
    current.retain(|field, _| named(field));
    Ok(())
}

/// Merges the lists that have an order in the patch, and takes both out of it.
fn merge_ordered_lists(schema: &str, current: &mut Object, patch: &mut Object) -> Result<(), MergeError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let field = directive[SET_ELEMENT_ORDER.len()..].to_owned();
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(MergeError::DirectiveNotAList(directive));
        };
        let how = merging(schema, &field);
        let identity = Identity(how.key);
        let server = match current.get(&field) {
            Some(Value::Array(server)) => server.clone(),
            _ => Vec::new(),
        };
        match patch.remove(&field) {
            Some(Value::Null) => {
                current.remove(&field);
                continue;
            }
            Some(Value::Array(elements)) => {
                check_ordered(identity, &field, &order, &elements)?;
                merge_field(how, current, field.clone(), Value::Array(elements))?;
            }
            Some(other) => merge_field(how, current, field.clone(), other)?,
            None => {}
        }
        if let Some(Value::Array(merged)) = current.get_mut(&field) {
            *merged = arrange(identity, std::mem::take(merged), &order, &server);
        }
    }
    Ok(())
}

/// Each element that the patch changes must have a place in the order it gives.
fn check_ordered(
    identity: Identity<'_>,
    field: &str,
    order: &[Value],
    elements: &[Value],
) -> Result<(), MergeError> {
    let stray = elements
        .iter()
        .find(|element| element.get(DIRECTIVE).is_none() && identity.position(order, element).is_none());
    match stray {
        None => Ok(()),
        Some(element) => Err(MergeError::NotOrdered {
            field: field.to_owned(),
            element: element.to_string(),
        }),
    }
}

fn delete_scalars(current: &mut Object, field: &str, gone: &Value) -> Result<(), MergeError> {
    let Value::Array(gone) = gone else {
        return Err(MergeError::DirectiveNotAList(format!(
            "{DELETE_FROM_LIST}{field}"
        )));
    };
    if let Some(Value::Array(list)) = current.get_mut(field) {
        list.retain(|element| !gone.contains(element));
    }
    Ok(())
}

fn merge_list(how: Merging, field: &str, old: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>, MergeError> {
    let server = old.clone();
    let Some(key) = how.key else {
        let mut merged = old;
        for element in &new {
            if !merged.contains(element) {
                merged.push(element.clone());
            }
        }
        return Ok(arrange(Identity(None), merged, &new, &server));
    };
    let (merged, changed) = merge_elements(how, key, field, old, new)?;
    Ok(arrange(Identity(Some(key)), merged, &changed, &server))
}

/// The merged elements, and those of the patch that are not directives.
fn merge_elements(
    how: Merging,
    key: &'static str,
    field: &str,
    mut old: Vec<Value>,
    new: Vec<Value>,
) -> Result<(Vec<Value>, Vec<Value>), MergeError> {
    let identity = Identity(Some(key));
    let mut changed = Vec::with_capacity(new.len());
    let mut replace = false;
    for element in new {
        match element.get(DIRECTIVE).map(Value::as_str) {
            None | Some(Some("merge")) => changed.push(element),
            Some(Some("replace")) => replace = true,
            Some(Some("delete")) if element.get(key).is_some() => {
                old.retain(|other| !identity.same(other, &element));
            }
            Some(Some("delete")) => return Err(MergeError::NoKeyToDeleteBy(field.to_owned())),
            Some(other) => return Err(MergeError::UnknownDirective(other.unwrap_or("?").to_owned())),
        }
    }
    if replace {
        let elements: Vec<Value> = changed.into_iter().map(without_directives).collect();
        return Ok((elements.clone(), elements));
    }
    for element in &changed {
        merge_element(how, key, &mut old, element)?;
    }
    Ok((old, changed))
}

fn merge_element(
    how: Merging,
    key: &'static str,
    list: &mut Vec<Value>,
    element: &Value,
) -> Result<(), MergeError> {
    let Some(patch) = element.as_object().filter(|object| object.contains_key(key)) else {
        return Err(MergeError::NoMergeKey(key));
    };
    match list
        .iter_mut()
        .find(|other| Identity(Some(key)).same(other, element))
    {
        Some(Value::Object(found)) => {
            let old = std::mem::take(found);
            *found = merge_object(how.schema.unwrap_or_default(), old, patch.clone())?;
        }
        _ => list.push(without_directives(element.clone())),
    }
    Ok(())
}

/// A value that is taken over whole: without directives, and without the nulls that meant "delete".
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(field, value)| !is_directive(field) && !value.is_null())
                .map(|(field, value)| (field, without_directives(value)))
                .collect(),
        ),
        Value::Array(elements) => Value::Array(
            elements
                .into_iter()
                .filter(|element| element.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"))
                .map(without_directives)
                .collect(),
        ),
        other => other,
    }
}

fn is_directive(field: &str) -> bool {
    field == DIRECTIVE
        || field == RETAIN_KEYS
        || field.starts_with(SET_ELEMENT_ORDER)
        || field.starts_with(DELETE_FROM_LIST)
}

#[cfg(test)]
mod tests;
