//! What a node lets its pods have: how many processes, and which kernel parameters.

use k8s_openapi::api::core::v1::Pod;

use crate::admission::Rejection;

/// Parameters that are a pod's own and cannot harm others, as Kubernetes lists them
/// (<https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the node's administrator has decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits {
    /// How many processes and threads a pod may have at once; `None`: as many as the node.
    pub pids_max: Option<i64>,
    /// Further kernel parameters that pods may set: names, or beginnings that end in `*`.
    pub unsafe_sysctls: Vec<String>,
}

impl Permits {
    /// Refuses a pod that sets what it may not.
    pub(crate) fn check(&self, pod: &Pod) -> Result<(), Rejection> {
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let wanted = context.and_then(|context| context.sysctls.as_deref());
        let is_refused = |name: &&str| !self.allows(name);
        let mut names = wanted.unwrap_or_default().iter().map(|sysctl| &*sysctl.name);
        match names.find(is_refused) {
            None => Ok(()),
            Some(name) => Err(Rejection::new(
                "SysctlForbidden".to_owned(),
                &format!(
                    "forbidden sysctl: {name:?} not allowlisted (--allowed-unsafe-sysctls of this node's agent allows it)"
                ),
            )),
        }
    }

    fn allows(&self, name: &str) -> bool {
        // Both ways of writing are Kubernetes'.
        let name = name.replace('/', ".");
        let is_meant = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *pattern,
        };
        SAFE_SYSCTLS.contains(&&*name) || self.unsafe_sysctls.iter().any(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, allowed: &[&str]) -> String {
        let pod = serde_json::json!({"spec": {
            "containers": [],
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}
        }});
        let permits = Permits {
            unsafe_sysctls: allowed.iter().map(|name| (*name).to_owned()).collect(),
            ..Permits::default()
        };
        match permits.check(&serde_json::from_value(pod).unwrap()) {
            Ok(()) => "taken".to_owned(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        }
    }

    #[test]
    fn only_safe_parameters_are_set_unless_the_node_allows_more() {
        assert_eq!(check("net.ipv4.tcp_syncookies", &[]), "taken");
        assert_eq!(check("net/ipv4/tcp_syncookies", &[]), "taken");
        assert_eq!(
            check("kernel.msgmax", &["net.*"]),
            "SysctlForbidden: Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted \
             (--allowed-unsafe-sysctls of this node's agent allows it)"
        );
        assert_eq!(check("kernel.msgmax", &["kernel.msg*"]), "taken");
        assert_eq!(check("net.core.somaxconn", &["net.core.somaxconn"]), "taken");
        assert!(check("net.core.somaxconns", &["net.core.somaxconn"]).starts_with("SysctlForbidden"));
    }
}
