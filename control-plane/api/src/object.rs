//! Any Kubernetes object behind one interface.

use std::any::Any;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object of some kind; implemented for every k8s-openapi type that has metadata.
pub trait Object: Any + Send + Sync + Debug {
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Canonical JSON, with `apiVersion` and `kind` first.
    fn encode(&self) -> Vec<u8>;
    /// For downcasting to the concrete type.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting to the concrete type, to change it.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// For taking the concrete value out of its box.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// A copy behind the same interface.
    fn clone_box(&self) -> Box<dyn Object>;
}

impl<T> Object for T
where
    T: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    T: Clone + Debug + Send + Sync + 'static,
{
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("Kubernetes types have only string keys and finite numbers")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Object> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// The object as it is proposed to the store: canonical JSON without `metadata.resourceVersion` and
/// `metadata.managedFields`, and the byte offset just after the top-level `"metadata":{`, where the store writes the
/// revision.
pub fn draft(object: &dyn Object) -> (Vec<u8>, usize) {
    let meta = object.meta();
    let json = if meta.resource_version.is_none() && meta.managed_fields.is_none() {
        object.encode()
    } else {
        let mut object = object.clone_box();
        object.meta_mut().resource_version = None;
        object.meta_mut().managed_fields = None;
        object.encode()
    };
    let offset = metadata_offset(&json).expect("every encoded object has a metadata object");
    (json, offset)
}

/// The offset just after the top-level `"metadata":{`, found by walking the JSON with its nesting and strings.
fn metadata_offset(json: &[u8]) -> Option<usize> {
    const NEEDLE: &[u8] = b"\"metadata\":{";
    let (mut depth, mut at) = (0_usize, 0);
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' if depth == 1 && json[at..].starts_with(NEEDLE) => return Some(at + NEEDLE.len()),
            b'"' => at = string_end(json, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The index of the quote that ends the string which starts at `start`.
fn string_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
    use k8s_openapi::api::core::v1::Event;

    use super::*;

    fn marked(object: &dyn Object) -> String {
        let (json, offset) = draft(object);
        let (before, after) = json.split_at(offset);
        format!(
            "{}^{}",
            String::from_utf8_lossy(before),
            String::from_utf8_lossy(after)
        )
    }

    fn named<T: Object + Default>() -> T {
        let mut object = T::default();
        object.meta_mut().name = Some("web".into());
        object.meta_mut().resource_version = Some("7".into());
        object
    }

    #[test]
    fn the_offset_is_inside_the_top_level_metadata() {
        let mut deployment = named::<Deployment>();
        let spec = deployment.spec.get_or_insert_default();
        spec.template.metadata.get_or_insert_default().name = Some("inner".into());
        expect_test::expect![[r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{^"name":"web"},"spec":{"selector":{},"template":{"metadata":{"name":"inner"}}}}"#]]
            .assert_eq(&marked(&deployment));
    }

    #[test]
    fn keys_and_nested_metadata_before_it_are_skipped() {
        let mut revision = named::<ControllerRevision>();
        revision.data = Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(
            serde_json::json!({"metadata": {"text": "\"metadata\":{ \\"}}),
        ));
        expect_test::expect![[r#"{"apiVersion":"apps/v1","kind":"ControllerRevision","data":{"metadata":{"text":"\"metadata\":{ \\"}},"metadata":{^"name":"web"},"revision":0}"#]]
            .assert_eq(&marked(&revision));
        let event = marked(&named::<Event>());
        assert!(event.contains(r#""metadata":{^"name":"web"}"#), "{event}");
    }
}
