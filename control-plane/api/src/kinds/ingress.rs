//! Ingress

mod validate;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec, IngressStatus};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::ingresses;
use crate::kind::{Column, Kind, SubresourceInfo};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "Class",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    Column::text(
        "Hosts",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    Column::text(
        "Address",
        "Address is a list containing ingress points for the load-balancer",
    ),
    Column::text("Ports", "Ports of TLS configurations that open"),
    Column::AGE,
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::status("networking.k8s.io", "v1", "Ingress")];
const HOSTS_SHOWN_MAX: usize = 3;

pub(crate) fn kind() -> Kind {
    Builder::<Ingress>::namespaced("ingress")
        .short_names(&["ing"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .status(|ingress| &ingress.status, |ingress| &mut ingress.status)
        .on_create(|ingress| ingress.status = Some(no_load_balancer()))
        .generation(|ingress| &ingress.spec)
        .validate(validate::validate)
        .build()
}

fn no_load_balancer() -> IngressStatus {
    IngressStatus {
        load_balancer: Some(Default::default()),
    }
}

fn cells(ingress: &Ingress, now: Timestamp) -> Vec<Value> {
    let spec = ingress.spec.clone().unwrap_or_default();
    let has_tls = spec.tls.as_ref().is_some_and(|tls| !tls.is_empty());
    vec![
        name_cell(&ingress.metadata),
        ingresses::class_name(ingress).unwrap_or("<none>").into(),
        hosts(&spec).into(),
        addresses(ingress).join(",").into(),
        if has_tls { "80, 443" } else { "80" }.into(),
        age_cell(&ingress.metadata, now),
    ]
}

fn hosts(spec: &IngressSpec) -> String {
    let rules = spec.rules.iter().flatten();
    let named: Vec<&str> = rules
        .filter_map(|rule| rule.host.as_deref())
        .filter(|host| !host.is_empty())
        .collect();
    match named.len() {
        0 => "*".to_owned(),
        count if count > HOSTS_SHOWN_MAX => {
            let shown = named[..HOSTS_SHOWN_MAX].join(",");
            format!("{shown} + {} more...", count - HOSTS_SHOWN_MAX)
        }
        _ => named.join(","),
    }
}

fn addresses(ingress: &Ingress) -> Vec<String> {
    let balancer = ingress
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_deref());
    let address = |point: &k8s_openapi::api::networking::v1::IngressLoadBalancerIngress| {
        point
            .ip
            .clone()
            .or(point.hostname.clone())
            .filter(|one| !one.is_empty())
    };
    points.unwrap_or_default().iter().filter_map(address).collect()
}
