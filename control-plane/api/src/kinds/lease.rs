//! Lease

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Holder", "The identity of the holder of the lease."),
    Column::AGE,
];

pub(crate) fn kind() -> Kind {
    Builder::<Lease>::namespaced("lease")
        .columns(COLUMNS, cells)
        .validate(validate)
        .build()
}

fn validate(lease: &Lease, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &lease.spec else {
        return;
    };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
        errors.invalid(
            path.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
        errors.invalid(
            path.child("leaseTransitions"),
            count,
            "must be greater than or equal to 0",
        );
    }
}

fn cells(lease: &Lease, now: Timestamp) -> Vec<Value> {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    vec![
        name_cell(&lease.metadata),
        holder.unwrap_or_default().into(),
        age_cell(&lease.metadata, now),
    ]
}
