//! ServiceAccount

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::kind::{Column, Kind, SubresourceInfo};

const TOKEN: SubresourceInfo = SubresourceInfo {
    name: "token",
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    verbs: &["create"],
};
const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Secrets", "Number of the account's secrets."),
    Column::AGE,
];

pub(crate) fn kind() -> Kind {
    Builder::<ServiceAccount>::namespaced("serviceaccount")
        .short_names(&["sa"])
        .subresources(&[TOKEN])
        .columns(COLUMNS, cells)
        .build()
}

fn cells(account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
    let count = account.secrets.iter().flatten().count();
    vec![
        name_cell(&account.metadata),
        count.into(),
        age_cell(&account.metadata, now),
    ]
}
