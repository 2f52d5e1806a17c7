//! Event, as stored: the core group's form. The form of `events.k8s.io` is another view of it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::builder::{Builder, FieldAccess};
use crate::duration;
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "Time at which the event was most recently recorded."),
    Column::text(
        "Type",
        "Type of this event (Normal, Warning), new types could be added in the future.",
    ),
    Column::text(
        "Reason",
        "A short, machine understandable string that gives the reason for the event.",
    ),
    Column::text("Object", "The object that this event is about."),
    Column::wide("Subobject", "The part of the object that this event is about."),
    Column::wide("Source", "The component that reports the event."),
    Column::text(
        "Message",
        "A human-readable description of the status of this operation.",
    ),
    Column::wide("First Seen", "Time at which the event was first recorded."),
    Column {
        type_: "integer",
        ..Column::wide("Count", "The number of times this event has occurred.")
    },
    Column {
        format: "name",
        ..Column::wide("Name", "Name must be unique within a namespace.")
    },
];

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

pub(super) const FIELDS: &[FieldAccess<Event>] = &[
    ("involvedObject.kind", |event| {
        text(event.involved_object.kind.as_ref())
    }),
    ("involvedObject.namespace", |event| {
        text(event.involved_object.namespace.as_ref())
    }),
    ("involvedObject.name", |event| {
        text(event.involved_object.name.as_ref())
    }),
    ("involvedObject.uid", |event| {
        text(event.involved_object.uid.as_ref())
    }),
    ("involvedObject.apiVersion", |event| {
        text(event.involved_object.api_version.as_ref())
    }),
    ("involvedObject.resourceVersion", |event| {
        text(event.involved_object.resource_version.as_ref())
    }),
    ("involvedObject.fieldPath", |event| {
        text(event.involved_object.field_path.as_ref())
    }),
    ("reason", |event| text(event.reason.as_ref())),
    ("reportingComponent", |event| {
        text(event.reporting_component.as_ref())
    }),
    ("source", |event| source_component(event).to_owned()),
    ("type", |event| text(event.type_.as_ref())),
];

pub(crate) fn kind() -> Kind {
    Builder::<Event>::namespaced("event")
        .short_names(&["ev"])
        .columns(COLUMNS, cells)
        .fields(FIELDS)
        .validate(validate)
        .build()
}

fn validate(event: &Event, errors: &mut FieldErrors) {
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    let own = event.metadata.namespace.as_deref().unwrap_or_default();
    let object = Path::root("involvedObject");
    if about != own && !(about.is_empty() && matches!(own, "default" | "kube-system")) {
        errors.invalid(object.child("namespace"), about, "does not match event.namespace");
    }
}

fn first_of(candidates: [Option<&String>; 2]) -> &str {
    candidates
        .into_iter()
        .flatten()
        .find(|text| !text.is_empty())
        .map_or("", String::as_str)
}

fn source_component(event: &Event) -> &str {
    let source = event.source.as_ref();
    first_of([
        source.and_then(|source| source.component.as_ref()),
        event.reporting_component.as_ref(),
    ])
}

fn source_text(event: &Event) -> String {
    let host = event.source.as_ref().and_then(|source| source.host.as_ref());
    match (
        source_component(event),
        first_of([host, event.reporting_instance.as_ref()]),
    ) {
        (component, "") => component.to_owned(),
        (component, instance) => format!("{component}, {instance}"),
    }
}

pub(super) fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
    let first = event.first_timestamp.as_ref().map(|time| time.0);
    let first = first.or(event.event_time.as_ref().map(|time| time.0));
    let series = event.series.as_ref();
    let last = match series {
        Some(series) => series.last_observed_time.as_ref().map(|time| time.0),
        None => event.last_timestamp.as_ref().map(|time| time.0).or(first),
    };
    let count = match series {
        Some(series) => series.count.unwrap_or(0),
        None => event.count.filter(|count| *count != 0).unwrap_or(1),
    };
    let kind = event
        .involved_object
        .kind
        .as_deref()
        .unwrap_or_default()
        .to_lowercase();
    let target = match event.involved_object.name.as_deref() {
        None | Some("") => kind,
        Some(name) => format!("{kind}/{name}"),
    };
    vec![
        duration::age(last, now).into(),
        text(event.type_.as_ref()).into(),
        text(event.reason.as_ref()).into(),
        target.into(),
        text(event.involved_object.field_path.as_ref()).into(),
        source_text(event).into(),
        event.message.as_deref().unwrap_or_default().trim().into(),
        duration::age(first, now).into(),
        count.into(),
        text(event.metadata.name.as_ref()).into(),
    ]
}
