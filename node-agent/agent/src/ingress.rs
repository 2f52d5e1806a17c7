//! Feeds the proxy for Ingresses from what is followed, and tells it where services are reached.

use std::sync::Arc;

use flotilla_ingress::{Endpoints, Listening, Options, Port, Proxy, Reachable, SharedRules};
use flotilla_services::{PortName, Reached, SharedModel};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::follow::{Change, Follow};

/// The proxy of this node.
pub(crate) struct Ingresses {
    proxy: Proxy,
    services: SharedModel,
}

impl Ingresses {
    /// Registers for what the proxy goes by; nothing when it has no port.
    pub(crate) fn new(
        follow: &mut Follow,
        options: Options,
        services: &SharedModel,
        tracker: &TaskTracker,
    ) -> Option<Self> {
        options.http_port.or(options.https_port)?;
        let rules = SharedRules::default();
        hear(follow, &rules);
        let endpoints = Arc::new(OfServices(services.clone()));
        Some(Self {
            proxy: Proxy::new(options, rules, endpoints, tracker.clone()),
            services: services.clone(),
        })
    }

    /// The ports that are open.
    pub(crate) fn listening(&self) -> watch::Receiver<Listening> {
        self.proxy.listening()
    }

    /// Serves until shutdown, once it is known where services are reached.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.services.synced() => {}
        }
        self.proxy.run(shutdown).await;
    }
}

fn hear(follow: &mut Follow, rules: &SharedRules) {
    let fed = rules.clone();
    follow.on::<Ingress>(move |change| match change {
        Change::Applied(ingress) => fed.ingress(ingress),
        Change::Gone { namespace, name } => fed.ingress_gone(namespace, name),
        Change::Synced => fed.ingresses_synced(),
    });
    let fed = rules.clone();
    follow.on::<IngressClass>(move |change| match change {
        Change::Applied(class) => fed.class(class),
        Change::Gone { name, .. } => fed.class_gone(name),
        Change::Synced => fed.classes_synced(),
    });
    let fed = rules.clone();
    follow.on::<Secret>(move |change| match change {
        Change::Applied(secret) => fed.secret(secret),
        Change::Gone { namespace, name } => fed.secret_gone(namespace, name),
        Change::Synced => fed.secrets_synced(),
    });
}

/// Where services are reached, as their rules on this node have it.
struct OfServices(SharedModel);

impl Endpoints for OfServices {
    fn version(&self) -> u64 {
        self.0.version()
    }

    fn resolve(&self, namespace: &str, service: &str, port: &Port) -> Reachable {
        let port = match port {
            Port::Number(number) => PortName::Number(*number),
            Port::Name(name) => PortName::Name(name),
        };
        match self.0.endpoints(namespace, service, port) {
            Reached::NoService => Reachable::NoService,
            Reached::NoPort => Reachable::NoPort,
            Reached::At(addresses) => Reachable::At(addresses),
        }
    }
}
