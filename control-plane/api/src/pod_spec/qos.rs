//! A pod's class of quality of service.

use k8s_openapi::api::core::v1::PodSpec;

use crate::quantity::Quantity;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`, from what the containers request and are limited to.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let mut asks = false;
    let mut guaranteed = true;
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for name in COMPUTE {
            let resources = container.resources.as_ref();
            let amount = |list| Quantity::get(list, name).filter(|amount| *amount > Quantity::ZERO);
            let limit = amount(resources.and_then(|resources| resources.limits.as_ref()));
            let request = amount(resources.and_then(|resources| resources.requests.as_ref())).or(limit);
            asks |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
