//! Finds fields that a type does not have, and values of the wrong type, with their paths.
//!
//! Pure. Kubernetes' types tell a deserializer the names of their fields; this one compares them
//! with what is there, which needs no schema and reads nothing twice.

use std::cell::RefCell;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::Segment;
use super::suggest::did_you_mean;

/// One mistake.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) path: Vec<Segment>,
    pub(super) message: String,
}

/// All unknown fields of `object`, and its first value of a wrong type.
pub(super) fn findings<T: DeserializeOwned>(object: &Value) -> Vec<Finding> {
    let found = RefCell::new(Vec::new());
    let checker = Checker {
        value: object,
        path: Path::Root,
        found: &found,
        numbers_are_text: false,
    };
    let outcome = T::deserialize(checker);
    let mut found = found.into_inner();
    if let Err(Mismatch { path, message }) = outcome {
        found.push(Finding {
            path: path.unwrap_or_default(),
            message,
        });
    }
    found
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn segments(&self) -> Vec<Segment> {
        let (parent, last) = match self {
            Path::Root => return Vec::new(),
            Path::Field(parent, name) => (parent, Segment::Field((*name).to_owned())),
            Path::Index(parent, index) => (parent, Segment::Index(*index)),
        };
        let mut segments = parent.segments();
        segments.push(last);
        segments
    }
}

/// A value of the wrong type; the innermost place that knows its path fills it in.
#[derive(Debug)]
struct Mismatch {
    path: Option<Vec<Segment>>,
    message: String,
}

impl Mismatch {
    fn at(mut self, path: &Path<'_>) -> Mismatch {
        self.path.get_or_insert_with(|| path.segments());
        self
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: std::fmt::Display>(message: T) -> Mismatch {
        Mismatch {
            path: None,
            message: message.to_string(),
        }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Mismatch {
        let hint = match found {
            de::Unexpected::Bool(_)
            | de::Unexpected::Signed(_)
            | de::Unexpected::Unsigned(_)
            | de::Unexpected::Float(_)
                if expected.to_string().contains("string") =>
            {
                ": put it in quotes"
            }
            _ => "",
        };
        Mismatch {
            path: None,
            message: format!("invalid type: {found}, expected {expected}{hint}"),
        }
    }
}

#[derive(Clone, Copy)]
struct Checker<'v, 'p> {
    value: &'v Value,
    path: Path<'p>,
    found: &'p RefCell<Vec<Finding>>,
    /// Quantities may be written as numbers: `cpu: 1`.
    numbers_are_text: bool,
}

impl<'v> Checker<'v, '_> {
    fn note_unknown(&self, fields: &'static [&'static str]) {
        let Some(map) = self.value.as_object() else { return };
        for key in map.keys().filter(|key| !fields.contains(&key.as_str())) {
            let message = format!(
                "unknown field \"{key}\"{}",
                did_you_mean(key, fields.iter().copied())
            );
            let path = Path::Field(&self.path, key).segments();
            self.found.borrow_mut().push(Finding { path, message });
        }
    }

    fn check_child<S: DeserializeSeed<'v>>(
        &self,
        seed: S,
        value: &'v Value,
        path: Path<'_>,
    ) -> Result<S::Value, Mismatch> {
        let child = Checker {
            value,
            path,
            found: self.found,
            numbers_are_text: false,
        };
        seed.deserialize(child).map_err(|mismatch| mismatch.at(&path))
    }
}

impl<'de> Deserializer<'de> for Checker<'de, '_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                _ if self.numbers_are_text => visitor.visit_string(number.to_string()),
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(_) => visitor.visit_seq(Items {
                checker: self,
                next: 0,
            }),
            Value::Object(map) => visitor.visit_map(Fields {
                checker: self,
                entries: map.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(Checker {
            numbers_are_text: name == "Quantity",
            ..self
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.note_unknown(fields);
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Fields<'v, 'p> {
    checker: Checker<'v, 'p>,
    entries: serde_json::map::Iter<'v>,
    value: Option<(&'v str, &'v Value)>,
}

impl<'v> MapAccess<'v> for Fields<'v, '_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'v>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        // Kubernetes takes null for a field that is absent.
        let next = self.entries.by_ref().find(|(_, value)| !value.is_null());
        self.value = next.map(|(key, value)| (key.as_str(), value));
        match self.value {
            Some((key, _)) => seed.deserialize(de::value::StrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let (key, value) = self
            .value
            .take()
            .ok_or_else(|| <Mismatch as de::Error>::custom("a value without key"))?;
        self.checker
            .check_child(seed, value, Path::Field(&self.checker.path, key))
    }
}

struct Items<'v, 'p> {
    checker: Checker<'v, 'p>,
    next: usize,
}

impl<'v> SeqAccess<'v> for Items<'v, '_> {
    type Error = Mismatch;

    fn next_element_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        let Some(value) = self.checker.value.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(&self.checker.path, self.next);
        self.next += 1;
        self.checker.check_child(seed, value, path).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    fn check(object: Value, expected: Expect) {
        let lines: Vec<String> = findings::<Deployment>(&object)
            .iter()
            .map(|finding| format!("{:?}: {}", finding.path, finding.message))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn unknown_fields_are_found_at_any_depth() {
        check(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metdata": {}, "spec": {"template": {"spec": {"containers": [{"name": "a", "imag": "x"}]}}}}),
            expect![[r#"
                [Field("metdata")]: unknown field "metdata", did you mean "metadata"?
                [Field("spec"), Field("template"), Field("spec"), Field("containers"), Index(0), Field("imag")]: unknown field "imag", did you mean "image"?"#]],
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        check(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": "3"}}),
            expect![[r#"[Field("spec"), Field("replicas")]: invalid type: string "3", expected i32"#]],
        );
        check(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"a": true}}}),
            expect![[
                r#"[Field("metadata"), Field("labels"), Field("a")]: invalid type: boolean `true`, expected a string: put it in quotes"#
            ]],
        );
    }

    #[test]
    fn what_kubernetes_takes_is_not_complained_about() {
        check(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"creationTimestamp": null, "name": "a"}, "status": {},
                "spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                    "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "ports": [{"containerPort": 80}]}]}}}}),
            expect![""],
        );
    }
}
