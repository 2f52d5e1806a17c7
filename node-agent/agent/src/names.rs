//! Answers names on this node: the records follow the cluster's objects, the server listens once the node has the
//! address.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use flotilla_dns::{Options, Records, Server};
use flotilla_proto::node::NodeConfig;
use flotilla_report::report;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::follow::{Change, Follow};

const PORT: u16 = 53;
/// Whom the node itself asks.
const RESOLVER_FILE: &str = "/etc/resolv.conf";
/// After a failure to listen, for example because somebody else has the port.
const RETRY: Duration = Duration::from_secs(2);

/// The cluster's names as this node knows them.
#[derive(Clone)]
pub(crate) struct Names {
    records: Arc<RwLock<Records>>,
}

/// Which of the followed resources has been told whole at least once.
#[derive(Default)]
struct Told {
    services: bool,
    slices: bool,
    namespaces: bool,
}

/// The records, and what is still missing of them.
#[derive(Clone, Default)]
struct Fed {
    records: Arc<RwLock<Records>>,
    told: Arc<RwLock<Told>>,
}

impl Fed {
    fn change(&self, change: impl FnOnce(&mut Records)) {
        change(&mut self.records.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn told(&self, note: impl FnOnce(&mut Told)) {
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        note(&mut told);
        if told.services && told.slices && told.namespaces {
            self.change(Records::set_complete);
        }
    }
}

fn place(meta: &ObjectMeta) -> (&str, &str) {
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

impl Names {
    /// Registers for what has names.
    pub(crate) fn new(follow: &mut Follow) -> Self {
        let fed = Fed::default();
        let services = fed.clone();
        follow.on(move |change: &Change<Service>| match change {
            Change::Applied(service) => services.change(|records| {
                let (namespace, name) = place(&service.metadata);
                records.set_service(namespace, name, Some(service));
            }),
            Change::Gone { namespace, name } => {
                services.change(|records| records.set_service(namespace, name, None));
            }
            Change::Synced => services.told(|told| told.services = true),
        });
        let slices = fed.clone();
        follow.on(move |change: &Change<EndpointSlice>| match change {
            Change::Applied(slice) => slices.change(|records| {
                let (namespace, name) = place(&slice.metadata);
                records.set_slice(namespace, name, Some(slice));
            }),
            Change::Gone { namespace, name } => {
                slices.change(|records| records.set_slice(namespace, name, None));
            }
            Change::Synced => slices.told(|told| told.slices = true),
        });
        let namespaces = fed.clone();
        follow.on(move |change: &Change<Namespace>| match change {
            Change::Applied(namespace) => {
                namespaces.change(|records| records.set_namespace(place(&namespace.metadata).1, true));
            }
            Change::Gone { name, .. } => namespaces.change(|records| records.set_namespace(name, false)),
            Change::Synced => namespaces.told(|told| told.namespaces = true),
        });
        Self { records: fed.records }
    }

    /// Listens wherever the control plane wants it, until shutdown.
    pub(crate) async fn serve(
        self,
        mut settings: watch::Receiver<Option<NodeConfig>>,
        shutdown: CancellationToken,
    ) {
        loop {
            let address = self.learn(settings.borrow_and_update().as_ref());
            let answering = async {
                match address {
                    Some(address) => self.answer(address, &shutdown).await,
                    None => std::future::pending().await,
                }
            };
            // Dropping the server frees its sockets; clients ask the next one again.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = answering => return,
                changed = settings.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes over the cluster's settings; returns the address to listen on.
    fn learn(&self, settings: Option<&NodeConfig>) -> Option<IpAddr> {
        let settings = settings?;
        let address = settings.cluster_dns.parse().ok();
        let own_ranges = vec![settings.cluster_cidr.clone()];
        self.records
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .set_zone(&settings.cluster_domain, address, own_ranges);
        address
    }

    /// Answers until shutdown.
    async fn answer(&self, address: IpAddr, shutdown: &CancellationToken) {
        loop {
            let options = Options {
                listen: SocketAddr::new(address, PORT),
                resolver_file: PathBuf::from(RESOLVER_FILE),
            };
            match Server::bind(options, self.records.clone()).await {
                Ok(server) => return server.run(shutdown.child_token()).await,
                Err(error) => {
                    tracing::warn!(address = %address, error = report(&error), "names cannot be answered; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
