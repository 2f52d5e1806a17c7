//! Event in the form of `events.k8s.io`: a view of the stored core form, field by field.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::Value;

use super::event;
use crate::builder::{Builder, FieldAccess, View};
use crate::kind::Kind;
use crate::registry::registry;

const FIELDS: &[FieldAccess<Event>] = &[
    ("regarding.kind", |event| regarding(event, |object| object.kind)),
    ("regarding.namespace", |event| {
        regarding(event, |object| object.namespace)
    }),
    ("regarding.name", |event| regarding(event, |object| object.name)),
    ("regarding.uid", |event| regarding(event, |object| object.uid)),
    ("regarding.apiVersion", |event| {
        regarding(event, |object| object.api_version)
    }),
    ("regarding.resourceVersion", |event| {
        regarding(event, |object| object.resource_version)
    }),
    ("regarding.fieldPath", |event| {
        regarding(event, |object| object.field_path)
    }),
    ("reason", |event| event.reason.clone().unwrap_or_default()),
    ("reportingController", |event| {
        event.reporting_controller.clone().unwrap_or_default()
    }),
    ("type", |event| event.type_.clone().unwrap_or_default()),
];

fn regarding(event: &Event, get: fn(core::ObjectReference) -> Option<String>) -> String {
    event.regarding.clone().and_then(get).unwrap_or_default()
}

pub(crate) fn kind() -> Kind {
    Builder::<Event>::namespaced("event")
        .short_names(&["ev"])
        .columns(event::COLUMNS, cells)
        .fields(FIELDS)
        .view(View {
            storage: || registry().of::<core::Event>(),
            to_storage: |object| match object.into_any().downcast::<Event>() {
                Ok(event) => Box::new(to_core(*event)),
                Err(_) => unreachable!("the kind has decoded it"),
            },
            from_storage: |object| match object.into_any().downcast::<core::Event>() {
                Ok(event) => Box::new(from_core(*event)),
                Err(_) => unreachable!("the storage kind has decoded it"),
            },
        })
        .build()
}

fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
    event::cells(&to_core(event.clone()), now)
}

fn to_core(event: Event) -> core::Event {
    core::Event {
        metadata: event.metadata,
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| core::EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

fn from_core(event: core::Event) -> Event {
    Event {
        metadata: event.metadata,
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| EventSeries {
            count: series.count.unwrap_or(0),
            last_observed_time: series
                .last_observed_time
                .unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)),
        }),
        type_: event.type_,
    }
}
