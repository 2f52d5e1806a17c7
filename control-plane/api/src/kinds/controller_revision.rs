//! ControllerRevision

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::kind::{Column, Kind};
use crate::metadata::controller_of;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Controller", "Controller of the object"),
    Column::integer(
        "Revision",
        "Revision indicates the revision of the state represented by Data.",
    ),
    Column::AGE,
];

pub(crate) fn kind() -> Kind {
    Builder::<ControllerRevision>::namespaced("controllerrevision")
        .columns(COLUMNS, cells)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

fn validate(revision: &ControllerRevision, errors: &mut FieldErrors) {
    if revision.data.is_none() {
        errors.required(Path::root("data"), "data is mandatory");
    }
    if revision.revision < 0 {
        errors.invalid(
            Path::root("revision"),
            revision.revision,
            "must be greater than or equal to 0",
        );
    }
}

fn validate_update(new: &ControllerRevision, old: &ControllerRevision, errors: &mut FieldErrors) {
    if new.data != old.data {
        let shown = new
            .data
            .as_ref()
            .map(|data| data.0.to_string())
            .unwrap_or_default();
        errors.invalid(Path::root("data"), Verbatim(shown), "field is immutable");
    }
}

fn cells(revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
    let meta = &revision.metadata;
    let controller = controller_of(meta).map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let kind = owner.kind.to_lowercase();
            match group {
                "" => format!("{kind}/{}", owner.name),
                group => format!("{kind}.{group}/{}", owner.name),
            }
        },
    );
    vec![
        name_cell(meta),
        controller.into(),
        revision.revision.into(),
        age_cell(meta, now),
    ]
}
