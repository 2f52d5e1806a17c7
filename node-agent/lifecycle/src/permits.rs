//! What a node lets its pods have: how many processes, and which kernel parameters.

use k8s_openapi::api::core::v1::{Pod, Sysctl};

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
    /// Refuses a pod that sets what it may not, or what is not its own because it shares the node's.
    pub(crate) fn check(&self, pod: &Pod) -> Result<(), Rejection> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        let context = spec.security_context.as_ref();
        let wanted = context.and_then(|context| context.sysctls.as_deref());
        for Sysctl { name, .. } in wanted.unwrap_or_default() {
            let shared = match Namespace::of(name) {
                Some(Namespace::Net) if spec.host_network == Some(true) => Some("net"),
                Some(Namespace::Ipc) if spec.host_ipc == Some(true) => Some("ipc"),
                _ => None,
            };
            if let Some(shared) = shared {
                return Err(forbidden(&format!(
                    "{name:?} not allowed with host {shared} enabled"
                )));
            }
            if !self.allows(name) {
                return Err(forbidden(&format!(
                    "{name:?} not allowlisted (--allowed-unsafe-sysctls of this node's agent allows it)"
                )));
            }
        }
        Ok(())
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

/// Whose a parameter is.
enum Namespace {
    Net,
    Ipc,
}

impl Namespace {
    /// Others are the node's alone.
    fn of(name: &str) -> Option<Self> {
        let name = name.replace('/', ".");
        let is_ipc = name == "kernel.sem"
            || ["kernel.shm", "kernel.msg", "fs.mqueue."]
                .iter()
                .any(|beginning| name.starts_with(beginning));
        match name.starts_with("net.") {
            true => Some(Namespace::Net),
            false => is_ipc.then_some(Namespace::Ipc),
        }
    }
}

fn forbidden(why: &str) -> Rejection {
    Rejection::new("SysctlForbidden".to_owned(), &format!("forbidden sysctl: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, allowed: &[&str]) -> String {
        check_sharing(name, allowed, "hostPID")
    }

    fn check_sharing(name: &str, allowed: &[&str], shared: &str) -> String {
        let pod = serde_json::json!({"spec": {
            "containers": [],
            shared: true,
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

    #[test]
    fn parameters_of_what_is_shared_with_the_node_are_not_the_pods_to_set() {
        assert_eq!(
            check_sharing("net.ipv4.tcp_syncookies", &[], "hostNetwork"),
            "SysctlForbidden: Pod was rejected: forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host \
             net enabled"
        );
        assert_eq!(
            check_sharing("kernel/shm_rmid_forced", &[], "hostIPC"),
            "SysctlForbidden: Pod was rejected: forbidden sysctl: \"kernel/shm_rmid_forced\" not allowed with host \
             ipc enabled"
        );
        assert_eq!(
            check_sharing("kernel.shm_rmid_forced", &[], "hostNetwork"),
            "taken"
        );
        assert_eq!(check_sharing("net.ipv4.tcp_syncookies", &[], "hostIPC"), "taken");
    }
}
