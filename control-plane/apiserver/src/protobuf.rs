//! Request bodies in Kubernetes' protobuf encoding, translated to JSON.
//!
//! Clients made with Go (kubectl from 1.32 on, for what it creates by name) prefer to send protobuf, and not all of
//! them fall back. Answers are always JSON, which they all accept. Pure. The fields' numbers are
//! `protobuf/fields.txt`, made by `protobuf/generate.py`; fields that are not there are skipped, as protobuf has it.

mod fields;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use fields::{Field, Shape, Type, message};
use wire::{Raw, Reader};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body cannot be translated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TranslateError {
    #[error("the body does not begin with the mark of Kubernetes' protobuf encoding")]
    NoMagic,
    #[error("the body ends in the middle of a field, or a field has the wrong form")]
    Malformed,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("the server does not know the protobuf form of {0}")]
    UnknownKind(String),
}

/// The JSON of an object in its protobuf envelope.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, TranslateError> {
    let body = body.strip_prefix(MAGIC).ok_or(TranslateError::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader::new(body) {
        match field? {
            (1, Raw::Bytes(type_meta)) => {
                for field in Reader::new(type_meta) {
                    match field? {
                        (1, Raw::Bytes(text)) => api_version = string(text)?,
                        (2, Raw::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let fields = message(&message_name(&api_version, &kind))
        .ok_or_else(|| TranslateError::UnknownKind(format!("{api_version} {kind}")))?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    fill(&mut object, fields, raw)?;
    Ok(Value::Object(object))
}

/// The message of a kind, as `fields.txt` names it.
fn message_name(api_version: &str, kind: &str) -> String {
    if matches!(kind, "DeleteOptions" | "Status") {
        return format!("apis.meta.v1.{kind}");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or(group);
    format!("{package}.{version}.{kind}")
}

/// Puts the fields of a message into an object.
fn fill(object: &mut Map<String, Value>, fields: &[Field], bytes: &[u8]) -> Result<(), TranslateError> {
    for found in Reader::new(bytes) {
        let (number, raw) = found?;
        let Some(field) = fields.iter().find(|field| field.number == number) else {
            continue;
        };
        if field.name == "<" {
            if let (Type::Message(name), Raw::Bytes(bytes)) = (field.type_, raw) {
                fill(object, message(name).unwrap_or_default(), bytes)?;
            }
            continue;
        }
        match field.shape {
            Shape::One => {
                if let Some(value) = value(field.type_, raw)?.filter(|value| is_meant(field.name, value)) {
                    object.insert(field.name.to_owned(), value);
                }
            }
            Shape::List => {
                let list = object
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    append(list, field.type_, raw)?;
                }
            }
            Shape::Map => {
                let (key, value) = entry(field.type_, raw)?;
                let map = object
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

/// Numbers whose zero is not the same as their absence: pointers in Kubernetes' types.
const ZERO_IS_MEANT: &[&str] = &[
    "activeDeadlineSeconds",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "expirationSeconds",
    "fsGroup",
    "gracePeriodSeconds",
    "mode",
    "priority",
    "progressDeadlineSeconds",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsUser",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "value",
];

/// Flags whose `false` is not the same as their absence.
const FALSE_IS_MEANT: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "blockOwnerDeletion",
    "controller",
    "enableServiceLinks",
    "hostUsers",
    "immutable",
    "optional",
    "orphanDependents",
    "privileged",
    "readOnlyRootFilesystem",
    "ready",
    "runAsNonRoot",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "terminating",
];

/// Go sends zero values of fields that are no pointers; in JSON they are left out.
fn is_meant(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag || FALSE_IS_MEANT.contains(&field),
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0) || ZERO_IS_MEANT.contains(&field),
        _ => true,
    }
}

fn append(list: &mut Vec<Value>, type_: Type, raw: Raw<'_>) -> Result<(), TranslateError> {
    if let (Type::Integer, Raw::Bytes(packed)) = (type_, raw) {
        let numbers = wire::packed(packed).ok_or(TranslateError::Malformed)?;
        list.extend(numbers.into_iter().map(Value::from));
        return Ok(());
    }
    list.extend(value(type_, raw)?);
    Ok(())
}

fn entry(type_: Type, raw: Raw<'_>) -> Result<(String, Value), TranslateError> {
    let Raw::Bytes(bytes) = raw else {
        return Err(TranslateError::Malformed);
    };
    let (mut key, mut found) = (String::new(), None);
    for field in Reader::new(bytes) {
        match field? {
            (1, Raw::Bytes(text)) => key = string(text)?,
            (2, raw) => found = value(type_, raw)?,
            _ => {}
        }
    }
    Ok((key, found.unwrap_or_else(|| Value::String(String::new()))))
}

fn value(type_: Type, raw: Raw<'_>) -> Result<Option<Value>, TranslateError> {
    Ok(match (type_, raw) {
        (Type::String, Raw::Bytes(bytes)) => Some(string(bytes)?.into()),
        (Type::Bytes, Raw::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Type::Integer, Raw::Varint(number)) => Some(number.cast_signed().into()),
        (Type::Boolean, Raw::Varint(number)) => Some((number != 0).into()),
        (Type::Double, Raw::Fixed(bits)) => Some(f64::from_bits(bits).into()),
        (Type::Message(name), Raw::Bytes(bytes)) => special(name, bytes)?,
        _ => return Err(TranslateError::Malformed),
    })
}

/// A message's JSON; some have one of their own.
fn special(name: &str, bytes: &[u8]) -> Result<Option<Value>, TranslateError> {
    match name {
        "apis.meta.v1.Time" => time(bytes, 0),
        "apis.meta.v1.MicroTime" => time(bytes, 6),
        "api.resource.Quantity" => Ok(texts(bytes, 1)?.map(Value::from)),
        "util.intstr.IntOrString" => int_or_string(bytes).map(Some),
        "apis.meta.v1.FieldsV1" | "runtime.RawExtension" => {
            let raw = texts(bytes, 1)?.unwrap_or_else(|| "null".to_owned());
            serde_json::from_str(&raw)
                .map(Some)
                .map_err(|_| TranslateError::Malformed)
        }
        name => {
            let Some(fields) = message(name) else {
                return Ok(None);
            };
            let mut object = Map::new();
            fill(&mut object, fields, bytes)?;
            Ok(Some(Value::Object(object)))
        }
    }
}

/// The last text of a field.
fn texts(bytes: &[u8], wanted: u32) -> Result<Option<String>, TranslateError> {
    let mut found = None;
    for field in Reader::new(bytes) {
        if let (number, Raw::Bytes(text)) = field?
            && number == wanted
        {
            found = Some(string(text)?);
        }
    }
    Ok(found)
}

fn time(bytes: &[u8], digits: usize) -> Result<Option<Value>, TranslateError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for field in Reader::new(bytes) {
        match field? {
            (1, Raw::Varint(number)) => seconds = number.cast_signed(),
            (2, Raw::Varint(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or_default(),
            _ => {}
        }
    }
    let moment = Timestamp::new(seconds, nanos).map_err(|_| TranslateError::Malformed)?;
    Ok(Some(format!("{moment:.digits$}").into()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, TranslateError> {
    let (mut is_string, mut number, mut text) = (false, 0_i64, String::new());
    for field in Reader::new(bytes) {
        match field? {
            (1, Raw::Varint(type_)) => is_string = type_ == 1,
            (2, Raw::Varint(found)) => number = found.cast_signed(),
            (3, Raw::Bytes(found)) => text = string(found)?,
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number.into() })
}

fn string(bytes: &[u8]) -> Result<String, TranslateError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| TranslateError::NotUtf8)
}

#[cfg(test)]
mod tests;
