//! The files that every container of a pod shares.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::launch::hostname;

/// `/etc/hosts` of a pod, with kubelet's content.
pub fn hosts_file(pod: &Pod, addresses: &[IpAddr], cluster_domain: &str) -> String {
    let mut file = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    let subdomain = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|name| !name.is_empty());
    for address in addresses {
        let line = match subdomain {
            Some(subdomain) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                format!("{address}\t{name}.{subdomain}.{namespace}.svc.{cluster_domain}\t{name}\n")
            }
            None => format!("{address}\t{name}\n"),
        };
        file.push_str(&line);
    }
    let aliases = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten());
    let lines: Vec<String> = aliases
        .map(|alias| {
            format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.clone().unwrap_or_default().join("\t")
            )
        })
        .collect();
    if !lines.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
        file.extend(lines);
    }
    file
}

/// `/etc/resolv.conf` of a pod. `cluster_dns` is empty where the cluster has no DNS; the node's own file then stands
/// in. The pod's `dnsConfig` is added to either.
pub fn resolver_file(pod: &Pod, cluster_dns: &str, cluster_domain: &str, of_node: &str) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let uses_host = spec.and_then(|spec| spec.host_network).unwrap_or_default();
    let is_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !uses_host,
        _ => false,
    };
    let mut file = String::new();
    if is_cluster && !cluster_dns.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let _ = writeln!(
            file,
            "search {namespace}.svc.{cluster_domain} svc.{cluster_domain} {cluster_domain}"
        );
        let _ = writeln!(file, "nameserver {cluster_dns}\noptions ndots:5");
    } else if policy != "None" {
        file.push_str(of_node);
    }
    let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) else {
        return file;
    };
    if let Some(searches) = config.searches.as_ref().filter(|searches| !searches.is_empty()) {
        let _ = writeln!(file, "search {}", searches.join(" "));
    }
    for server in config.nameservers.iter().flatten() {
        let _ = writeln!(file, "nameserver {server}");
    }
    for option in config.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        let _ = match &option.value {
            Some(value) => writeln!(file, "options {name}:{value}"),
            None => writeln!(file, "options {name}"),
        };
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let json = format!(r#"{{"metadata":{{"name":"web","namespace":"shop"}},"spec":{spec}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec =
            r#"{"containers":[],"subdomain":"db","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}"#;
        let file = hosts_file(&pod(spec), &["10.42.0.5".parse().unwrap()], "cluster.local");
        let tail = "10.42.0.5\tweb.db.shop.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n";
        assert!(file.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(file.ends_with(tail), "{file}");
    }

    #[test]
    fn names_are_resolved_by_the_cluster_where_it_has_dns() {
        let check = |spec: &str, dns: &str, expected: &str| {
            assert_eq!(
                resolver_file(&pod(spec), dns, "cluster.local", "nameserver 9.9.9.9\n"),
                expected,
                "{spec}"
            );
        };
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n";
        check(r#"{"containers":[]}"#, "10.43.0.10", cluster);
        check(r#"{"containers":[]}"#, "", "nameserver 9.9.9.9\n");
        check(
            r#"{"containers":[],"dnsPolicy":"Default"}"#,
            "10.43.0.10",
            "nameserver 9.9.9.9\n",
        );
        let none = r#"{"containers":[],"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"],"searches":["x"],
            "options":[{"name":"ndots","value":"2"},{"name":"edns0"}]}}"#;
        check(
            none,
            "10.43.0.10",
            "search x\nnameserver 1.1.1.1\noptions ndots:2\noptions edns0\n",
        );
    }
}
