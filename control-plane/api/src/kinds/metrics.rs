//! NodeMetrics and PodMetrics: computed when they are asked for, so they can only be read.

use jiff::Timestamp;
use serde_json::Value;

use crate::builder::{Builder, name_cell};
use crate::kind::{Column, Kind};
use crate::metrics::{NodeMetrics, PodMetrics, amount};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("cpu", "Use of the processor, in cores."),
    Column::text("memory", "Memory that is in use and cannot be reclaimed."),
    Column::text("Window", "The time over which the use was measured."),
];
const READ: &[&str] = &["get", "list"];

pub(crate) fn of_nodes() -> Kind {
    Builder::<NodeMetrics>::cluster_scoped("")
        .verbs(READ)
        .columns(COLUMNS, |metrics, _| {
            let usage = &metrics.usage;
            cells(
                name_cell(&metrics.metadata),
                (amount(usage, "cpu"), amount(usage, "memory")),
                &metrics.window,
            )
        })
        .computed()
        .build()
}

pub(crate) fn of_pods() -> Kind {
    Builder::<PodMetrics>::namespaced("")
        .verbs(READ)
        .columns(COLUMNS, |metrics, _: Timestamp| {
            cells(name_cell(&metrics.metadata), metrics.total(), &metrics.window)
        })
        .computed()
        .build()
}

fn cells(name: Value, (nano_cores, kibibytes): (i64, i64), window: &str) -> Vec<Value> {
    vec![
        name,
        format!("{nano_cores}n").into(),
        format!("{kibibytes}Ki").into(),
        window.into(),
    ]
}
