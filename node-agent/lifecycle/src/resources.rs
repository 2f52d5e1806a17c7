//! Requests and limits as the numbers that cgroups know.

use std::collections::BTreeMap;

use flotilla_api::quantity::{Quantity, QuantityField};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::rules::{self, Role};

/// Amounts by the name of the resource.
pub type Quantities = BTreeMap<String, QuantityField>;

/// What a cgroup is set to; none leaves the kernel's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Relative weight, 1024 per core.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time per period.
    pub cpu_quota: Option<i64>,
    /// The period in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
}

const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CORE: i64 = 1024;
const PERIOD_MICROS: u64 = 100_000;
const QUOTA_MICROS_MIN: i64 = 1000;

/// The limits of one container's cgroup.
pub fn container_limits(container: &Container) -> CgroupLimits {
    let need = Need::of(container);
    limits(need.cpu_request, need.cpu_limit, need.memory_limit)
}

/// The limits of the pod's cgroup: the sum of its containers', where each has one, and what the pod costs by itself.
///
/// Init containers run one after another, beside the sidecars before them.
pub fn pod_limits(pod: &Pod) -> CgroupLimits {
    let mut lasting = Sum::default();
    let mut peak = Sum::default();
    for (role, container) in rules::containers(pod) {
        let mut with = lasting;
        with.add(Need::of(container));
        match role {
            Role::Main | Role::Sidecar => lasting = with,
            Role::Init => peak = peak.larger(with),
            Role::Ephemeral => {}
        }
    }
    let mut total = peak.larger(lasting);
    let spec = pod.spec.as_ref();
    if let Some(stated) = spec.and_then(|spec| spec.resources.as_ref()) {
        total.replace(stated);
    }
    if let Some(overhead) = spec.and_then(|spec| spec.overhead.as_ref()) {
        let cost = |name| Quantity::get(Some(overhead), name);
        let cpu = cost("cpu").map_or(0, Quantity::milli);
        let memory = cost("memory").map_or(0, Quantity::value);
        total.add(Need {
            cpu_request: cpu,
            cpu_limit: Some(cpu),
            memory_limit: Some(memory),
        });
    }
    limits(total.cpu_request, total.cpu_limit, total.memory_limit)
}

#[derive(Clone, Copy)]
struct Need {
    cpu_request: i64,
    cpu_limit: Option<i64>,
    memory_limit: Option<i64>,
}

impl Need {
    fn of(container: &Container) -> Need {
        let none = ResourceRequirements::default();
        Need::stated(container.resources.as_ref().unwrap_or(&none))
    }

    fn stated(resources: &ResourceRequirements) -> Need {
        let (requests, limits) = (resources.requests.as_ref(), resources.limits.as_ref());
        let cpu = |list| Quantity::get(list, "cpu").map(Quantity::milli);
        let cpu_limit = cpu(limits).filter(|limit| *limit > 0);
        let memory = Quantity::get(limits, "memory").map(Quantity::value);
        Need {
            cpu_request: cpu(requests).or(cpu_limit).unwrap_or(0),
            cpu_limit,
            memory_limit: memory.filter(|limit| *limit > 0),
        }
    }
}

#[derive(Clone, Copy)]
struct Sum {
    cpu_request: i64,
    cpu_limit: Option<i64>,
    memory_limit: Option<i64>,
}

impl Default for Sum {
    fn default() -> Self {
        Sum {
            cpu_request: 0,
            cpu_limit: Some(0),
            memory_limit: Some(0),
        }
    }
}

impl Sum {
    fn add(&mut self, need: Need) {
        let both = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
        self.cpu_request = self.cpu_request.saturating_add(need.cpu_request);
        self.cpu_limit = both(self.cpu_limit, need.cpu_limit);
        self.memory_limit = both(self.memory_limit, need.memory_limit);
    }

    /// What is stated for the pod as a whole counts instead of the sum.
    fn replace(&mut self, stated: &ResourceRequirements) {
        let need = Need::stated(stated);
        let has_cpu = |list| Quantity::get(list, "cpu").is_some();
        if has_cpu(stated.requests.as_ref()) || need.cpu_limit.is_some() {
            self.cpu_request = need.cpu_request;
        }
        self.cpu_limit = need.cpu_limit.or(self.cpu_limit);
        self.memory_limit = need.memory_limit.or(self.memory_limit);
    }

    fn larger(self, other: Sum) -> Sum {
        let both = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a.max(b));
        Sum {
            cpu_request: self.cpu_request.max(other.cpu_request),
            cpu_limit: both(self.cpu_limit, other.cpu_limit),
            memory_limit: both(self.memory_limit, other.memory_limit),
        }
    }
}

fn limits(cpu_request: i64, cpu_limit: Option<i64>, memory_limit: Option<i64>) -> CgroupLimits {
    let shares = (cpu_request.saturating_mul(SHARES_PER_CORE) / 1000).clamp(SHARES_MIN, SHARES_MAX);
    let quota = cpu_limit
        .filter(|limit| *limit > 0)
        .map(|limit| limit.saturating_mul(100).max(QUOTA_MICROS_MIN));
    CgroupLimits {
        cpu_shares: u64::try_from(shares).ok(),
        cpu_quota: quota,
        cpu_period: quota.map(|_| PERIOD_MICROS),
        memory_limit: memory_limit.filter(|limit| *limit > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"spec":{{"containers":{containers}}}}}"#)).unwrap()
    }

    const FULL: &str = r#"{"name":"a","resources":{"limits":{"cpu":"500m","memory":"64Mi"},"requests":{"cpu":"250m","memory":"64Mi"}}}"#;
    const BARE: &str = r#"{"name":"b"}"#;
    const SURE: &str = r#"{"name":"c","resources":{"limits":{"cpu":"1","memory":"1Gi"}}}"#;

    #[test]
    fn requests_are_shares_and_limits_are_quota_and_memory() {
        let found = pod_limits(&pod(&format!("[{FULL}]")));
        let expected = CgroupLimits {
            cpu_shares: Some(256),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(67_108_864),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_pods_own_cost_is_added() {
        let mut pod = pod(&format!("[{SURE}]"));
        let overhead = r#"{"cpu":"100m","memory":"1Mi"}"#;
        pod.spec.as_mut().unwrap().overhead = serde_json::from_str(overhead).unwrap();
        let found = pod_limits(&pod);
        assert_eq!(
            (found.cpu_shares, found.cpu_quota, found.memory_limit),
            (Some(1126), Some(110_000), Some((1 << 30) + (1 << 20)))
        );
    }

    #[test]
    fn init_containers_run_beside_the_sidecars_before_them() {
        let spec = r#"{"spec":{"initContainers":[
            {"name":"side","restartPolicy":"Always","resources":{"limits":{"cpu":"1","memory":"1Gi"}}},
            {"name":"init","resources":{"limits":{"cpu":"3","memory":"1Gi"}}}],
            "containers":[{"name":"web","resources":{"limits":{"cpu":"2","memory":"2Gi"}}}]}}"#;
        let found = pod_limits(&serde_json::from_str(spec).unwrap());
        assert_eq!(
            (found.cpu_quota, found.memory_limit),
            (Some(400_000), Some(3 << 30))
        );
    }

    #[test]
    fn a_pod_is_limited_only_when_each_container_is() {
        let both = pod_limits(&pod(&format!("[{FULL},{BARE}]")));
        assert_eq!(
            (both.cpu_shares, both.cpu_quota, both.memory_limit),
            (Some(256), None, None)
        );
        let sum = pod_limits(&pod(&format!("[{FULL},{SURE}]")));
        assert_eq!(
            (sum.cpu_shares, sum.cpu_quota, sum.memory_limit),
            (Some(1280), Some(150_000), Some(1_140_850_688))
        );
    }
}
