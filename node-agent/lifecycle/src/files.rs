//! The files that every container of a pod shares.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig};

use crate::launch::{fqdn, hostname};

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
    let fqdn = fqdn(pod, cluster_domain);
    for address in addresses {
        let line = match &fqdn {
            Some(fqdn) => format!("{address}\t{fqdn}\t{name}\n"),
            None => format!("{address}\t{name}\n"),
        };
        file.push_str(&line);
    }
    add_aliases(pod, &mut file);
    file
}

/// `/etc/hosts` of a pod in the node's network: the node's own, and the pod's aliases.
pub fn host_network_hosts_file(pod: &Pod, of_node: &str) -> String {
    let mut file = format!("# Kubernetes-managed hosts file (host network).\n{of_node}");
    add_aliases(pod, &mut file);
    file
}

fn add_aliases(pod: &Pod, file: &mut String) {
    let spec = pod.spec.iter();
    let aliases = spec.flat_map(|spec| spec.host_aliases.iter().flatten());
    let line = |alias: &HostAlias| {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        format!("{}\t{}\n", alias.ip, names.join("\t"))
    };
    let lines: Vec<String> = aliases.map(line).collect();
    if !lines.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
        file.extend(lines);
    }
}

/// As many name servers as resolvers look at.
const SERVERS_MAX: usize = 3;
/// Kubernetes' limit of search paths.
const SEARCHES_MAX: usize = 32;

/// What a resolver is told.
#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// `/etc/resolv.conf` of a pod. `cluster_dns` is empty where the cluster has no DNS; the node's own file then stands
/// in. The pod's `dnsConfig` is merged into either: resolvers read only the last `search` of a file.
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
    let mut resolver = if policy == "None" {
        Resolver::default()
    } else {
        Resolver::read(of_node)
    };
    if is_cluster && !cluster_dns.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        searches.append(&mut resolver.searches);
        resolver = Resolver {
            servers: vec![cluster_dns.to_owned()],
            searches,
            options: vec!["ndots:5".to_owned()],
        };
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        resolver.add(config);
    }
    resolver.write()
}

impl Resolver {
    fn read(file: &str) -> Self {
        let mut resolver = Self::default();
        for line in file.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                Some("search" | "domain") => resolver.searches = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    fn add(&mut self, config: &PodDNSConfig) {
        self.servers
            .extend(config.nameservers.clone().unwrap_or_default());
        self.searches.extend(config.searches.clone().unwrap_or_default());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let is_same = |known: &String| known.split(':').next() == Some(name);
            self.options.retain(|known| !is_same(known));
            self.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }

    fn write(self) -> String {
        let mut file = String::new();
        let searches = without_repeats(self.searches, SEARCHES_MAX);
        if !searches.is_empty() {
            let _ = writeln!(file, "search {}", searches.join(" "));
        }
        for server in without_repeats(self.servers, SERVERS_MAX) {
            let _ = writeln!(file, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(file, "options {}", self.options.join(" "));
        }
        file
    }
}

fn without_repeats(list: Vec<String>, limit: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for word in list {
        if seen.len() < limit && !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
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
            "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
        );
    }

    #[test]
    fn the_pods_own_words_are_merged_into_the_clusters_and_the_nodes() {
        let own = r#"{"containers":[],"dnsConfig":{"nameservers":["10.43.0.10","1.1.1.1"],"searches":["x","svc.cluster.local"],
            "options":[{"name":"ndots","value":"2"}]}}"#;
        let node = "# the node's\nsearch home\nnameserver 9.9.9.9\noptions rotate\n";
        let file = resolver_file(&pod(own), "10.43.0.10", "cluster.local", node);
        let searches = "search shop.svc.cluster.local svc.cluster.local cluster.local home x\n";
        let servers = "nameserver 10.43.0.10\nnameserver 1.1.1.1\noptions ndots:2\n";
        assert_eq!(file, format!("{searches}{servers}"));
        let file = resolver_file(
            &pod(r#"{"containers":[],"hostNetwork":true}"#),
            "10.43.0.10",
            "c",
            node,
        );
        assert_eq!(file, "search home\nnameserver 9.9.9.9\noptions rotate\n");
        let spec = r#"{"containers":[],"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet"}"#;
        let file = resolver_file(&pod(spec), "10.43.0.10", "c", "");
        assert_eq!(
            file,
            "search shop.svc.c svc.c c\nnameserver 10.43.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn aliases_are_for_pods_in_the_nodes_network_as_well() {
        let spec = r#"{"containers":[],"hostAliases":[{"ip":"1.2.3.4","hostnames":["a"]}]}"#;
        let file = host_network_hosts_file(&pod(spec), "127.0.0.1\tlocalhost\n");
        let tail = "127.0.0.1\tlocalhost\n\n# Entries added by HostAliases.\n1.2.3.4\ta\n";
        assert_eq!(
            file,
            format!("# Kubernetes-managed hosts file (host network).\n{tail}")
        );
    }
}
