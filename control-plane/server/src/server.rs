//! Wiring: from options to a running replica, and its end.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use flotilla_api::{Reason, Status};
use flotilla_apiserver::{ApiServer, ServiceAccountKeys};
use flotilla_pki::{ClientTls, Identity, JoinToken, TlsError, channel, server_tls};
use flotilla_raft::{Expulsion, Platform, Replica, Timing};
use flotilla_resources::{EventWriter, Resources};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Options, leading,
    listener::{self, Services},
    material::{Material, MaterialError, write_private},
    nodes::{
        Assignments, Liveness, Nodes, TOKEN_NAMESPACE, TOKEN_SECRET_TYPE, USAGE_SERVERS, token_secret_name,
    },
    reset::{self, ResetError},
    snapshots::Snapshotter,
};

/// The token with which servers join, and agents may.
const SERVERS_TOKEN_FILE: &str = "join-token";
/// The token with which only agents join.
const AGENTS_TOKEN_FILE: &str = "agent-join-token";
/// How long requests that are under way at shutdown may still take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Keys or identity are missing or damaged.
    #[error("cannot prepare the server in {folder}")]
    Material {
        /// The data folder.
        folder: PathBuf,
        /// Why.
        source: MaterialError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The cluster's key for service accounts' tokens is damaged.
    #[error(
        "the key of service accounts' tokens in {folder}/pki is damaged: copy service-account.key from another server"
    )]
    ServiceAccountKey {
        /// The data folder.
        folder: PathBuf,
    },
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Open(#[from] flotilla_raft::OpenError),
    /// No cluster could be started.
    #[error("cannot start the cluster")]
    Bootstrap(#[from] flotilla_raft::BootstrapError),
    /// The other servers did not take this one in.
    #[error("cannot become a member of the cluster")]
    Join(#[from] flotilla_raft::JoinError),
    /// The cluster cannot be reduced to this server.
    #[error("cannot reset the cluster to this server")]
    Reset(#[from] ResetError),
    /// The cluster goes on without it.
    #[error(
        "{said}. This server, {name} (member {id}), stops. To let it join that cluster, move {folder} away and start it \
         with --join HOST:PORT and a join token: it joins as a new member"
    )]
    LeftBehind {
        /// What a server of that cluster said.
        said: String,
        /// The server's name.
        name: String,
        /// Its identity as a member.
        id: u64,
        /// The data folder.
        folder: PathBuf,
    },
    /// The others have taken it out.
    #[error(
        "this server, {name} (member {id}), was removed from the cluster and serves no longer; its data in {folder} \
         is of no use any more. To let it join again, move that folder away and start it with --join HOST:PORT and \
         a join token of the cluster: it joins as a new member"
    )]
    Removed {
        /// The server's name.
        name: String,
        /// Its identity as a member.
        id: u64,
        /// The data folder.
        folder: PathBuf,
    },
    /// The first objects cannot be stored.
    #[error("cannot store the cluster's first objects")]
    FirstObjects(#[source] Status),
}

/// One control-plane replica.
pub struct Server {
    options: Options,
    nodes: Nodes,
    resources: Resources,
    events: EventWriter,
    liveness: Arc<Liveness>,
    leading: watch::Sender<Option<Arc<Assignments>>>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    /// Asks this server to stop.
    shutdown: CancellationToken,
    /// Cancelled once nothing hangs on this server any more: everything in it ends.
    drain: CancellationToken,
}

impl Server {
    /// Makes or reads keys and identity, opens the store and takes the port. Serves nothing yet.
    pub async fn new(options: Options, shutdown: CancellationToken) -> Result<Self, ServerError> {
        reset::check(&options)?;
        let material = Material::obtain(&options)
            .await
            .map_err(|source| ServerError::Material {
                folder: options.data_dir.clone(),
                source,
            })?;
        let tls = server_tls(&material.identity)?;
        let address = options.listen();
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen { address, source })?;
        let replica = open_replica(&options, &material).await?;
        let admission = flotilla_resources::Options {
            toleration_seconds: options.toleration_seconds,
            account_tokens: true,
            service_cidr: options.service_cidr,
        };
        let (resources, events) = Resources::new(replica, admission);
        let liveness = Arc::new(Liveness::default());
        let (leading, is_leading) = watch::channel(None);
        let drain = CancellationToken::new();
        let nodes = Nodes::new(
            resources.clone(),
            material,
            liveness.clone(),
            is_leading,
            drain.clone(),
        );
        Ok(Self {
            options,
            nodes,
            resources,
            events,
            liveness,
            leading,
            listener,
            tls,
            shutdown,
            drain,
        })
    }

    /// The identity with which the agent in this process speaks for this machine.
    pub fn node_identity(&self) -> Result<Identity, ServerError> {
        self.nodes
            .material()
            .node_identity()
            .map_err(|source| ServerError::Material {
                folder: self.options.data_dir.clone(),
                source,
            })
    }

    /// Serves until shutdown, then hands leadership over and lets requests finish.
    pub async fn run(self) -> Result<(), ServerError> {
        let tracker = TaskTracker::new();
        let replica = self.resources.replica().clone();
        let material = |source| ServerError::Material {
            folder: self.options.data_dir.clone(),
            source,
        };
        self.nodes
            .material()
            .write_admin_kubeconfig(&self.options)
            .map_err(material)?;
        let services = self.services(&tracker)?;
        tracker.spawn(listener::listen(
            self.listener,
            self.tls,
            services,
            self.drain.clone(),
        ));
        tracker.spawn(self.events.run(self.drain.clone()));
        tracker.spawn(leading::follow(
            self.resources.clone(),
            self.options.network(),
            self.leading,
            tracker.clone(),
            self.drain.clone(),
        ));
        tracker.spawn(flotilla_controllers::run(
            flotilla_controllers::Options {
                toleration_seconds: self.options.toleration_seconds,
                root_ca: self.nodes.material().ca.certificate_pem().to_owned(),
                service_cidr: self.options.service_cidr,
                load_balancer_pool: self.options.load_balancer_pool.clone(),
                ..Default::default()
            },
            self.resources.clone(),
            self.liveness,
            replica.leadership(),
            self.drain.clone(),
        ));
        tracker.spawn(flotilla_scheduler::run(
            self.resources.clone(),
            replica.leadership(),
            self.drain.clone(),
        ));
        let ended = tokio::select! {
            // Dropping the entry half-way is harmless: it starts anew with the next start.
            ended = be_member(&self.options, &self.resources, self.nodes.material()) => ended,
            () = self.shutdown.cancelled() => Ok(()),
        };
        // Another server leads before this one stops to answer: nobody's request has to wait for an election.
        replica.resign().await;
        self.drain.cancel();
        tracker.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await.is_err() {
            tracing::warn!("requests were still under way when the server stopped");
        }
        replica.shutdown().await;
        ended
    }

    fn services(&self, tracker: &TaskTracker) -> Result<Services, ServerError> {
        let keys =
            service_account_keys(self.nodes.material()).ok_or_else(|| ServerError::ServiceAccountKey {
                folder: self.options.data_dir.clone(),
            })?;
        let replica = self.resources.replica();
        let grpc = tonic::service::Routes::new(replica.peer_service()).add_service(self.nodes.service());
        let api = ApiServer::new(
            self.resources.clone(),
            flotilla_apiserver::Options {
                service_account_keys: Some(keys),
                address: self.options.advertised(),
                drain: self.drain.clone(),
                stats: Arc::new(self.nodes.clone()),
                in_flight: self.options.in_flight,
                snapshots: Arc::new(Snapshotter::new(
                    replica.clone(),
                    self.nodes.material(),
                    tracker.clone(),
                )),
            },
            Arc::new(self.nodes.clone()),
            Arc::new(self.nodes.clone()),
        );
        Ok(Services {
            grpc: grpc.into_axum_router(),
            api,
        })
    }
}

pub(crate) fn service_account_keys(material: &Material) -> Option<ServiceAccountKeys> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(material.service_account_key_pem.as_bytes()).ok()?;
    ServiceAccountKeys::from_pkcs8_der(der.secret_pkcs8_der()).ok()
}

async fn open_replica(options: &Options, material: &Material) -> Result<Replica, ServerError> {
    let tls = ClientTls::with_identity(&material.identity)?;
    let platform = Platform::real(Arc::new(move |address| channel(address, &tls)));
    reset::prepare(options, material.member.id, &platform).await?;
    let options = flotilla_raft::Options {
        id: material.member.id,
        name: options.name.clone(),
        address: options.advertised(),
        data_dir: options.data_dir.join("store"),
        platform,
        timing: Timing::default(),
        limits: flotilla_raft::Limits {
            quota_bytes: options.store_quota_bytes,
            ..flotilla_raft::Limits::default()
        },
    };
    Ok(Replica::open(options).await?)
}

/// Becomes a member, and stays one; returns when it cannot, or is none any more.
async fn be_member(options: &Options, resources: &Resources, material: &Material) -> Result<(), ServerError> {
    enter(options, resources, material).await?;
    let (name, id) = (options.name.clone(), material.member.id);
    let folder = options.data_dir.clone();
    match resources.replica().expelled().await {
        // It was asked to, or its disk has failed: then it stays, to say so to whoever asks for its health.
        Expulsion::Stopped => std::future::pending().await,
        Expulsion::Removed => Err(ServerError::Removed { name, id, folder }),
        Expulsion::LeftBehind(said) => Err(ServerError::LeftBehind {
            said,
            name,
            id,
            folder,
        }),
    }
}

/// Becomes a member: of the cluster that is joined, of the one that was left at the last stop, or of a new one.
async fn enter(options: &Options, resources: &Resources, material: &Material) -> Result<(), ServerError> {
    let replica = resources.replica();
    match (&options.join, replica.is_initialized()) {
        (_, true) => announce(options, replica).await?,
        (Some(join), false) => replica.join(std::slice::from_ref(&join.server)).await?,
        (None, false) => {
            replica.bootstrap().await?;
            let mut leadership = replica.leadership();
            // The sender lives as long as the replica.
            let _ = leadership.wait_for(|now| now.is_self).await;
        }
    }
    // Also after a start that was cut short between the two.
    if options.join.is_none() && !options.data_dir.join(SERVERS_TOKEN_FILE).exists() {
        store_first_objects(options, resources, material).await?;
    }
    Ok(())
}

/// Tells the others where this server is now, if that changed.
async fn announce(options: &Options, replica: &Replica) -> Result<(), ServerError> {
    let members = replica.members();
    let own = members.iter().find(|member| member.name == options.name);
    if own.is_some_and(|own| own.address == options.advertised()) {
        return Ok(());
    }
    let others = members.iter().filter(|member| member.name != options.name);
    let others = others.map(|member| member.address.clone());
    // The only server of a cluster tells itself.
    let others: Vec<String> = others.chain([options.advertised()]).collect();
    Ok(replica.join(&others).await?)
}

/// The join tokens' records and the namespace that they live in; then the tokens' files, for people.
async fn store_first_objects(
    options: &Options,
    resources: &Resources,
    material: &Material,
) -> Result<(), ServerError> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(TOKEN_NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    match resources.create_typed(namespace).await {
        Err(status) if status.reason != Reason::AlreadyExists => {
            return Err(ServerError::FirstObjects(status));
        }
        _ => {}
    }
    // The token for servers is written last: where it is, the other is as well.
    for (file, servers) in [(AGENTS_TOKEN_FILE, false), (SERVERS_TOKEN_FILE, true)] {
        let token = JoinToken::generate(material.ca.fingerprint());
        resources
            .create_typed(token_record(&token, servers))
            .await
            .map_err(ServerError::FirstObjects)?;
        write_private(&options.data_dir.join(file), &token.to_string()).map_err(|source| {
            ServerError::Material {
                folder: options.data_dir.clone(),
                source,
            }
        })?;
    }
    Ok(())
}

fn token_record(token: &JoinToken, servers: bool) -> Secret {
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let description = match servers {
        true => "made when the cluster was started; good for any number of servers and agents",
        false => "made when the cluster was started; good for any number of agents",
    };
    let data = [
        ("token-id", text(&token.id)),
        ("token-secret", text(&token.secret)),
        ("usage-bootstrap-authentication", text("true")),
        (USAGE_SERVERS, text(if servers { "true" } else { "false" })),
        ("description", text(description)),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(token_secret_name(&token.id)),
            namespace: Some(TOKEN_NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some(TOKEN_SECRET_TYPE.into()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    }
}
