//! PriorityClass

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Value", "Value of PriorityClass's Priority"),
    Column {
        type_: "boolean",
        ..Column::text(
            "Global-Default",
            "Whether this PriorityClass is the global default",
        )
    },
    Column::AGE,
    Column::text(
        "PreemptionPolicy",
        "Policy for preempting pods with lower priority",
    ),
];
/// Names that begin so, and values above [`USER_VALUE_MAX`], are the cluster's own.
const SYSTEM_PREFIX: &str = "system-";
const USER_VALUE_MAX: i32 = 1_000_000_000;
/// The classes that every cluster has: name, value, description.
const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// The priority classes that every cluster has.
pub fn system_priority_classes() -> Vec<PriorityClass> {
    let class = |(name, value, description): (&str, i32, &str)| PriorityClass {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        value,
        description: Some(description.to_owned()),
        preemption_policy: Some("PreemptLowerPriority".to_owned()),
        global_default: None,
    };
    SYSTEM.map(class).into()
}

pub(crate) fn kind() -> Kind {
    Builder::<PriorityClass>::cluster_scoped("priorityclass")
        .short_names(&["pc"])
        .columns(COLUMNS, cells)
        .defaults(|class| {
            class
                .preemption_policy
                .get_or_insert_with(|| "PreemptLowerPriority".into());
        })
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

fn validate(class: &PriorityClass, errors: &mut FieldErrors) {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if name.starts_with(SYSTEM_PREFIX) {
        let own = SYSTEM
            .iter()
            .any(|(own, value, _)| (*own, *value) == (name, class.value));
        if !own {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: \
                this is not one of the system's own classes";
            let path = Path::root("metadata");
            errors.forbidden(path.child("name"), detail);
        }
    } else if class.value > USER_VALUE_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}");
        errors.forbidden(Path::root("value"), detail);
    }
    let policy = class.preemption_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "PreemptLowerPriority" | "Never") {
        errors.not_supported(
            Path::root("preemptionPolicy"),
            policy,
            &["Never", "PreemptLowerPriority"],
        );
    }
}

fn validate_update(new: &PriorityClass, old: &PriorityClass, errors: &mut FieldErrors) {
    if new.value != old.value {
        errors.forbidden(Path::root("value"), "may not be changed in an update.");
    }
    if new.preemption_policy != old.preemption_policy {
        let policy = new.preemption_policy.as_deref().unwrap_or_default();
        errors.invalid(Path::root("preemptionPolicy"), policy, "field is immutable");
    }
}

fn cells(class: &PriorityClass, now: Timestamp) -> Vec<Value> {
    vec![
        name_cell(&class.metadata),
        class.value.into(),
        class.global_default.unwrap_or(false).into(),
        age_cell(&class.metadata, now),
        class.preemption_policy.clone().unwrap_or_default().into(),
    ]
}
