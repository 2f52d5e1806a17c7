//! What a name of the cluster asks for. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of records that the cluster's names have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports of services.
    Srv,
    /// Names of addresses.
    Ptr,
    /// Another name.
    Cname,
    /// Text, of which there is only the version of the naming scheme.
    Txt,
    /// The servers of the zone.
    Ns,
    /// The zone itself.
    Soa,
    /// Anything else, which no name of the cluster has.
    Other,
}

/// A name below the cluster's domain, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// The domain itself.
    Zone,
    /// The name server of the zone.
    NameServer,
    /// `dns-version`.
    Version,
    /// `svc` or `pod`: nothing but names below it.
    Branch,
    /// A namespace below a branch.
    Namespace(&'a str),
    Service {
        namespace: &'a str,
        service: &'a str,
    },
    Endpoint {
        namespace: &'a str,
        service: &'a str,
        endpoint: &'a str,
    },
    /// `_http._tcp` of a service.
    Port {
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
        protocol: &'a str,
    },
    /// `_tcp` of a service, below which its ports are.
    Protocol {
        namespace: &'a str,
        service: &'a str,
    },
    Pod {
        namespace: &'a str,
        address: IpAddr,
    },
    /// Nothing can have this name.
    Nothing,
}

/// Takes a name apart; `below` is what stands before the domain, in lower case, without the dot between.
pub(crate) fn parse(below: &str) -> Question<'_> {
    let mut labels = below.rsplit('.');
    let mut next = || labels.next().filter(|label| !label.is_empty());
    let branch = next();
    match branch {
        None => return Question::Zone,
        Some("svc" | "pod") => {}
        Some("dns") => {
            return match next() {
                Some("ns") if next().is_none() => Question::NameServer,
                None => Question::Branch,
                _ => Question::Nothing,
            };
        }
        Some("dns-version") if next().is_none() => return Question::Version,
        Some(_) => return Question::Nothing,
    }
    let Some(namespace) = next() else {
        return Question::Branch;
    };
    let parts = (next(), next(), next(), next());
    if branch == Some("pod") {
        return match parts {
            (None, ..) => Question::Namespace(namespace),
            (Some(pod), None, ..) => {
                undashed(pod).map_or(Question::Nothing, |address| Question::Pod { namespace, address })
            }
            _ => Question::Nothing,
        };
    }
    match parts {
        (None, ..) => Question::Namespace(namespace),
        (Some(service), None, ..) => Question::Service { namespace, service },
        (Some(service), Some(protocol), None, _) if protocol.starts_with('_') => {
            Question::Protocol { namespace, service }
        }
        (Some(service), Some(endpoint), None, _) => Question::Endpoint {
            namespace,
            service,
            endpoint,
        },
        (Some(service), Some(protocol), Some(port), None) => {
            match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Question::Port {
                    namespace,
                    service,
                    port,
                    protocol,
                },
                _ => Question::Nothing,
            }
        }
        _ => Question::Nothing,
    }
}

/// `10-42-1-2` as an address.
pub(crate) fn undashed(text: &str) -> Option<IpAddr> {
    let is_v4 = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_v4 && let Ok(address) = text.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(address.into());
    }
    text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// An address as a label.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_from_the_right() {
        for (below, expected) in [
            ("", "Zone"),
            ("svc", "Branch"),
            ("pod", "Branch"),
            ("dns-version", "Version"),
            ("x.dns-version", "Nothing"),
            ("ns.dns", "NameServer"),
            ("default.svc", "Namespace(\"default\")"),
            (
                "web.default.svc",
                "Service { namespace: \"default\", service: \"web\" }",
            ),
            (
                "a.web.default.svc",
                "Endpoint { namespace: \"default\", service: \"web\", endpoint: \"a\" }",
            ),
            (
                "_tcp.web.default.svc",
                "Protocol { namespace: \"default\", service: \"web\" }",
            ),
            (
                "_http._tcp.web.default.svc",
                "Port { namespace: \"default\", service: \"web\", port: \"http\", protocol: \"tcp\" }",
            ),
            ("http._tcp.web.default.svc", "Nothing"),
            ("x._http._tcp.web.default.svc", "Nothing"),
            (
                "10-42-1-2.default.pod",
                "Pod { namespace: \"default\", address: 10.42.1.2 }",
            ),
            (
                "fd00--7.default.pod",
                "Pod { namespace: \"default\", address: fd00::7 }",
            ),
            ("web.default.pod", "Nothing"),
            ("x.10-42-1-2.default.pod", "Nothing"),
            ("google.com", "Nothing"),
            ("web..svc", "Branch"),
        ] {
            assert_eq!(format!("{:?}", parse(below)), expected, "{below}");
        }
    }
}
