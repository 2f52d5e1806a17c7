//! What probes and hooks do, with names resolved: ports, addresses, variables.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Pod, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::expansion::expand;

/// One thing to do to or in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Run a command inside; exit code 0 is success.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Send an HTTP request; 200 to 399 is success.
    Http(HttpCheck),
    /// Open a connection.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Ask the gRPC health service.
    Grpc {
        /// Address.
        host: String,
        /// Port.
        port: u16,
        /// The service to ask about; empty means the server as a whole.
        service: String,
    },
    /// Wait; for hooks only.
    Sleep {
        /// How long.
        seconds: i64,
    },
}

/// An HTTP request of a probe or hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// TLS, without verification.
    pub is_https: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query; begins with `/`.
    pub path: String,
    /// Further headers; `Host` overrides the one of the address.
    pub headers: Vec<(String, String)>,
}

impl HttpCheck {
    /// The URL, as Go prints it in errors.
    pub fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}{}", host_port(&self.host, self.port), self.path)
    }
}

/// `host:port`, with IPv6 addresses in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Why it cannot be said what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// No port of the container has this name.
    #[error("couldn't find port: {name} in container {container}")]
    NoPort {
        /// The name.
        name: String,
        /// The container's.
        container: String,
    },
    /// Not a port's number.
    #[error("invalid port number: {number}")]
    Port {
        /// The number.
        number: i64,
    },
    /// The pod has no address yet.
    #[error("the pod has no address yet")]
    NoAddress,
    /// There is nothing in it that is known here.
    #[error("missing handler in {field} of container {container}")]
    Missing {
        /// `livenessProbe`, `lifecycle.preStop`.
        field: &'static str,
        /// The container's name.
        container: String,
    },
}

/// What names are resolved against.
struct Scope<'a> {
    pod: &'a Pod,
    container: &'a Container,
    addresses: &'a [IpAddr],
    host_addresses: &'a [IpAddr],
}

/// What a probe does.
pub(crate) fn probe_check(
    pod: &Pod,
    container: &Container,
    probe: &Probe,
    addresses: &[IpAddr],
    host_addresses: &[IpAddr],
) -> Result<Check, HandlerError> {
    let scope = Scope {
        pod,
        container,
        addresses,
        host_addresses,
    };
    match probe {
        Probe { exec: Some(exec), .. } => Ok(scope.exec(exec)),
        Probe {
            http_get: Some(get), ..
        } => scope.http(get),
        Probe {
            tcp_socket: Some(socket),
            ..
        } => scope.tcp(socket),
        Probe { grpc: Some(grpc), .. } => scope.grpc(grpc),
        _ => Err(HandlerError::Missing {
            field: "a probe",
            container: container.name.clone(),
        }),
    }
}

/// What a hook does; `field` is its name.
pub(crate) fn hook_check(
    pod: &Pod,
    container: &Container,
    (field, handler): (&'static str, &LifecycleHandler),
    addresses: &[IpAddr],
    host_addresses: &[IpAddr],
) -> Result<Check, HandlerError> {
    let scope = Scope {
        pod,
        container,
        addresses,
        host_addresses,
    };
    match handler {
        LifecycleHandler { exec: Some(exec), .. } => Ok(scope.exec(exec)),
        LifecycleHandler {
            http_get: Some(get), ..
        } => scope.http(get),
        LifecycleHandler {
            sleep: Some(sleep), ..
        } => Ok(Check::Sleep {
            seconds: sleep.seconds,
        }),
        // Kubernetes keeps `tcpSocket` here for old manifests and runs nothing.
        _ => Err(HandlerError::Missing {
            field,
            container: container.name.clone(),
        }),
    }
}

impl Scope<'_> {
    /// Only variables with plain values are replaced, as kubelet does it.
    fn exec(&self, exec: &ExecAction) -> Check {
        let variable = |name: &str| {
            let mut all = self.container.env.iter().flatten();
            all.find(|variable| variable.name == name)
                .and_then(|variable| variable.value.clone())
        };
        let command = exec.command.iter().flatten();
        Check::Exec {
            command: command.map(|word| expand(word, variable)).collect(),
        }
    }

    fn http(&self, get: &HTTPGetAction) -> Result<Check, HandlerError> {
        let path = get.path.as_deref().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        Ok(Check::Http(HttpCheck {
            is_https: get
                .scheme
                .as_deref()
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: self.host(get.host.as_deref())?,
            port: self.port(&get.port)?,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            headers: headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        }))
    }

    fn tcp(&self, socket: &TCPSocketAction) -> Result<Check, HandlerError> {
        Ok(Check::Tcp {
            host: self.host(socket.host.as_deref())?,
            port: self.port(&socket.port)?,
        })
    }

    fn grpc(&self, grpc: &GRPCAction) -> Result<Check, HandlerError> {
        Ok(Check::Grpc {
            host: self.host(None)?,
            port: self.port(&IntOrString::Int(grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        })
    }

    /// The given host, else the pod's address, which is the node's in its network.
    fn host(&self, given: Option<&str>) -> Result<String, HandlerError> {
        if let Some(host) = given.filter(|host| !host.is_empty()) {
            return Ok(host.to_owned());
        }
        let spec = self.pod.spec.as_ref();
        let is_on_host = spec.and_then(|spec| spec.host_network) == Some(true);
        let addresses = if is_on_host {
            self.host_addresses
        } else {
            self.addresses
        };
        addresses
            .first()
            .map(ToString::to_string)
            .ok_or(HandlerError::NoAddress)
    }

    fn port(&self, port: &IntOrString) -> Result<u16, HandlerError> {
        let number = match port {
            IntOrString::Int(number) => i64::from(*number),
            IntOrString::String(name) => self.named_port(name)?,
        };
        u16::try_from(number)
            .ok()
            .filter(|port| *port > 0)
            .ok_or(HandlerError::Port { number })
    }

    fn named_port(&self, name: &str) -> Result<i64, HandlerError> {
        let mut ports = self.container.ports.iter().flatten();
        let found = ports.find(|port| port.name.as_deref() == Some(name));
        let found = found.map(|port| i64::from(port.container_port));
        found
            .or_else(|| name.parse().ok())
            .ok_or_else(|| HandlerError::NoPort {
                name: name.to_owned(),
                container: self.container.name.clone(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(probe: &str) -> String {
        let pod = format!(
            r#"{{"spec":{{"containers":[{{"name":"web","ports":[{{"name":"http","containerPort":8080}}],
                "env":[{{"name":"A","value":"one"}}],"readinessProbe":{probe}}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&pod).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let probe = container.readiness_probe.as_ref().unwrap();
        match probe_check(&pod, container, probe, &["10.42.0.5".parse().unwrap()], &[]) {
            Ok(Check::Http(http)) => format!("{} {:?}", http.url(), http.headers),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_are_resolved() {
        for (probe, expected) in [
            (r#"{"httpGet":{"port":"http"}}"#, "http://10.42.0.5:8080/ []"),
            (
                r#"{"httpGet":{"port":1,"scheme":"HTTPS","host":"::1","path":"a?b","httpHeaders":[{"name":"X","value":"y"}]}}"#,
                r#"https://[::1]:1/a?b [("X", "y")]"#,
            ),
            (
                r#"{"httpGet":{"port":"other"}}"#,
                "couldn't find port: other in container web",
            ),
            (
                r#"{"tcpSocket":{"port":"81"}}"#,
                r#"Tcp { host: "10.42.0.5", port: 81 }"#,
            ),
            (r#"{"tcpSocket":{"port":70000}}"#, "invalid port number: 70000"),
            (
                r#"{"grpc":{"port":9,"service":"s"}}"#,
                r#"Grpc { host: "10.42.0.5", port: 9, service: "s" }"#,
            ),
            (
                r#"{"exec":{"command":["echo","$(A)","$(B)"]}}"#,
                r#"Exec { command: ["echo", "one", "$(B)"] }"#,
            ),
            ("{}", "missing handler in a probe of container web"),
        ] {
            assert_eq!(check(probe), expected, "{probe}");
        }
    }
}
