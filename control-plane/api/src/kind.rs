//! What is known about one kind of object.
//!
//! A [`Kind`] is plain data (names, verbs, columns) and, behind [`Operations`], the typed functions of the kind's file.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::Value;

use crate::builder::Operations;
use crate::decode::{Decoded, FieldValidation};
use crate::object::Object;
use crate::status::Status;

/// One kind of object: its names, what can be done with it, and how it behaves.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, like `v1`.
    pub version: &'static str,
    /// Name of one object's type, like `Pod`.
    pub kind: &'static str,
    /// Name of the list's type, like `PodList`.
    pub list_kind: &'static str,
    /// Plural in URLs, like `pods`.
    pub resource: &'static str,
    /// Singular, like `pod`.
    pub singular: &'static str,
    /// What users type for short, like `po`.
    pub short_names: &'static [&'static str],
    /// Groups of kinds, like `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Paths below an object.
    pub subresources: &'static [SubresourceInfo],
    /// Columns of `kubectl get`.
    pub columns: &'static [Column],
    /// Whether nothing of it is stored: the API server makes its objects when they are asked for.
    pub computed: bool,
    pub(crate) operations: Box<dyn Operations>,
}

/// A path below an object, like `pods/web/log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// Last segment of the path.
    pub name: &'static str,
    /// Group of the body's kind.
    pub group: &'static str,
    /// Version of the body's kind.
    pub version: &'static str,
    /// Kind of the body.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// A column of `kubectl get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading as in Kubernetes' tables, like `Nominated Node`; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string` or `integer`.
    pub type_: &'static str,
    /// `name` for the name's column, else empty.
    pub format: &'static str,
    /// What the column tells.
    pub description: &'static str,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// The first column of every kind.
    pub const NAME: Self = Self {
        name: "Name",
        type_: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    };
    /// Time since the object was created.
    pub const AGE: Self = Self::text("Age", "Time since the object was created.");

    /// A column that is always shown.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            type_: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self {
            type_: "integer",
            ..Self::text(name, description)
        }
    }

    /// A column that is only shown with `-o wide`.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self {
            priority: 1,
            ..Self::text(name, description)
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({}, {})", self.api_version(), self.kind)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.kind) == (other.group, other.version, other.kind)
    }
}

impl Eq for Kind {}

/// Names.
impl Kind {
    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Group and plural: the store's name of the kind.
    pub fn resource_name(&self) -> (&str, &str) {
        (self.group, self.resource)
    }

    /// `deployments.apps`, or `pods` in the core group.
    pub fn qualified_resource(&self) -> String {
        qualified(self.resource, self.group)
    }

    /// `Deployment.apps`, or `Pod` in the core group.
    pub fn qualified_kind(&self) -> String {
        qualified(self.kind, self.group)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static SubresourceInfo> {
        self.subresources.iter().find(|one| one.name == name)
    }
}

fn qualified(name: &str, group: &str) -> String {
    match group {
        "" => name.to_owned(),
        group => format!("{name}.{group}"),
    }
}

/// Reading.
impl Kind {
    /// Reads what a client has sent.
    pub fn decode(&self, json: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
        self.operations.decode(self, json, validation)
    }

    /// Reads a value that a patch has made.
    pub fn decode_value(&self, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
        self.operations.decode_value(self, value, validation)
    }

    /// Reads what the store has kept; it was checked on its way in.
    pub fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, Status> {
        self.operations.decode_stored(json)
    }

    /// Where the kind is another view of a stored kind (events of `events.k8s.io`): that kind.
    ///
    /// Requests for such a kind are decoded with it, turned by [`Kind::to_storage`], and handled as the storage kind
    /// from there on; answers go through [`Kind::from_storage`].
    pub fn storage(&self) -> Option<&'static Kind> {
        self.operations.storage()
    }

    /// The object in the form in which it is stored; most kinds are stored as they are.
    pub fn to_storage(&self, object: Box<dyn Object>) -> Box<dyn Object> {
        self.operations.to_storage(object)
    }

    /// A stored object in this kind's form; most kinds are shown as they are stored.
    pub fn from_storage(&self, object: Box<dyn Object>) -> Box<dyn Object> {
        self.operations.shown(object)
    }
}

/// Writing.
impl Kind {
    /// Fills in what Kubernetes fills in.
    pub fn set_defaults(&self, object: &mut dyn Object) {
        self.operations.set_defaults(object);
    }

    /// Drops what users may not set on new objects; the generation of kinds that have one becomes 1.
    pub fn prepare_create(&self, object: &mut dyn Object) {
        self.operations.prepare_create(object);
    }

    /// Keeps what an update may not touch (status, the server's metadata) and counts the generation on when the
    /// desired state has changed.
    pub fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        self.operations.prepare_update(new, old);
    }

    /// Keeps everything of `old` but the status and the metadata that a status update may touch.
    pub fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        self.operations.prepare_status_update(new, old);
    }

    /// Keeps everything of `old` but the named part of the desired state.
    pub fn prepare_part_update(&self, part: &str, new: &mut dyn Object, old: &dyn Object) {
        self.operations.prepare_part_update(part, new, old);
    }

    /// Whether the named part of an object may be replaced.
    pub fn validate_part_update(&self, part: &str, new: &dyn Object, old: &dyn Object) -> Result<(), Status> {
        self.invalid_if_any(new, &self.operations.validate_part_update(self, part, new, old))
    }

    /// Whether a new object may be stored.
    pub fn validate_create(&self, object: &dyn Object) -> Result<(), Status> {
        self.invalid_if_any(object, &self.operations.validate(self, object))
    }

    /// Whether an object may be replaced.
    pub fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Result<(), Status> {
        self.invalid_if_any(new, &self.operations.validate_update(self, new, old))
    }

    fn invalid_if_any(&self, object: &dyn Object, errors: &[crate::FieldError]) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        let meta = object.meta();
        let name = meta
            .name
            .as_deref()
            .or(meta.generate_name.as_deref())
            .unwrap_or_default();
        Err(Status::invalid(self, name, errors))
    }

    /// Whether the kind has a status of its own path.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Seconds that the object may live on once it is deleted; 0 removes it at once.
    pub fn graceful_deletion(&self, object: &dyn Object, requested: Option<i64>) -> i64 {
        self.operations.graceful_deletion(object, requested)
    }

    /// Whether finalizers, of the metadata or of a namespace's spec, keep the object from going.
    pub fn has_finalizers(&self, object: &dyn Object) -> bool {
        let in_metadata = object
            .meta()
            .finalizers
            .as_ref()
            .is_some_and(|list| !list.is_empty());
        in_metadata || self.operations.has_own_finalizers(object)
    }

    /// Marks an object whose deletion begins (a namespace's phase becomes `Terminating`).
    pub fn begin_deletion(&self, object: &mut dyn Object) {
        self.operations.begin_deletion(object);
    }

    /// The object's size as clients of the `scale` path see it.
    pub fn scale(&self, object: &dyn Object) -> Option<Scale> {
        self.operations.scale(object)
    }

    /// Sets the number of replicas of a kind that has a scale.
    pub fn set_scale(&self, object: &mut dyn Object, replicas: i32) {
        self.operations.set_scale(object, replicas);
    }
}

/// Showing.
impl Kind {
    /// The cells of the object's row, one per column.
    pub fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        self.operations.cells(object, now)
    }

    /// What field selectors can ask for.
    pub fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        let meta = object.meta();
        let mut fields = vec![("metadata.name", meta.name.clone().unwrap_or_default())];
        if self.namespaced {
            fields.push(("metadata.namespace", meta.namespace.clone().unwrap_or_default()));
        }
        fields.extend(self.operations.fields(object));
        fields
    }

    /// Names of the fields that selectors can ask for.
    pub fn field_labels(&self) -> Vec<&'static str> {
        let mut labels = vec!["metadata.name"];
        if self.namespaced {
            labels.push("metadata.namespace");
        }
        labels.extend(self.operations.field_labels());
        labels
    }
}
