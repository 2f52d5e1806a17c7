//! The real machine: hands each request to the part that does it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use flotilla_images::{
    Freed, Image, ImageSummary, Keyring, Peers, Progress, Pulled, Puller, SpacePolicy, Store, StoreError,
    User,
};
use flotilla_lifecycle::References;
use flotilla_network::{Network, NetworkError, NodeConfig, Route, Traffic};
use flotilla_policies::{AdmitError, Engine};
use flotilla_report::report;
use flotilla_runtime::{
    AttachSpec, ContainerSpec, Exec, ExecError, ExecSpec, KillContainerError, Mount, Pod as SandboxHandle,
    RemoveContainerError, Resources, Runtime, SandboxSpec, ShimError, StartContainerError, Started,
};
use flotilla_services::SharedModel;
use flotilla_volumes::{MountError, SetUpError, TokenWanted, VolumePlace, Volumes};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    ChangeDiskError, CommandError, CommandOutput, ConnectPortError, FindImageError, Machine,
    MakeSandboxError, Observation, RemoveSandboxError, RemoveVolumesError, ResizeError, VolumesOrder,
    command, port, volumes,
};
use crate::services;
use crate::stats::PodUsage;

/// This machine.
pub(crate) struct LocalMachine {
    runtime: Runtime,
    pub(super) store: Store,
    pub(super) puller: Puller,
    network: Network,
    pub(super) volumes: Volumes,
    policies: flotilla_policies::SharedModel,
    sandboxes: Mutex<HashMap<String, SandboxHandle>>,
    executable: PathBuf,
    /// Cancelled once the built-in images are in the store, or cannot be.
    builtin: CancellationToken,
}

impl LocalMachine {
    pub(crate) fn new(
        runtime: Runtime,
        store: Store,
        puller: Puller,
        network: Network,
        volumes: Volumes,
        executable: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            store,
            puller,
            network,
            volumes,
            policies: flotilla_policies::SharedModel::new(),
            sandboxes: Mutex::default(),
            executable,
            builtin: CancellationToken::new(),
        })
    }

    /// Puts the built-in images into the store. Lookups that find nothing wait for it.
    pub(crate) fn ensure_builtin(&self) -> Result<(), StoreError> {
        let _done = self.builtin.clone().drop_guard();
        self.store.ensure_builtin(&self.executable)
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, SandboxHandle>> {
        self.sandboxes.lock().expect("no holder of this lock panics")
    }

    fn sandbox(&self, uid: &str) -> Option<SandboxHandle> {
        self.sandboxes().get(uid).cloned()
    }
}

#[async_trait]
impl Machine for LocalMachine {
    async fn adopt(&self) -> Vec<String> {
        let found = self.runtime.adopt().await;
        let mut uids: Vec<String> = found.iter().map(|pod| pod.uid().to_owned()).collect();
        match self.volumes.pods() {
            Ok(others) => uids.extend(others),
            Err(error) => tracing::warn!(error = report(&error), "volumes of earlier pods cannot be listed"),
        }
        self.sandboxes()
            .extend(found.into_iter().map(|pod| (pod.uid().to_owned(), pod)));
        uids
    }

    fn images(&self) -> Result<Vec<ImageSummary>, StoreError> {
        self.store.list()
    }

    async fn find_image(
        &self,
        reference: &str,
        uid: &str,
        container: &str,
    ) -> Result<Option<Image>, FindImageError> {
        let holder = format!("{uid}.{container}");
        let found = self.hold(reference, &holder).await?;
        if found.is_some() || self.builtin.is_cancelled() {
            return Ok(found);
        }
        self.builtin.cancelled().await;
        self.hold(reference, &holder).await
    }

    async fn pull(
        &self,
        reference: &str,
        keyring: Keyring,
        is_always: bool,
        told: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, String> {
        self.pull_image(reference, keyring, is_always, told).await
    }

    fn set_peers(&self, peers: Arc<dyn Peers>) {
        self.puller.set_peers(peers);
    }

    fn describe_for_peers(&self, reference: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.describe_for_peers(reference)
    }

    fn layer_for_peers(&self, diff_id: &str) -> Result<Option<std::fs::File>, StoreError> {
        self.store.layer_for_peers(diff_id)
    }

    fn free_space(&self) -> Result<Freed, StoreError> {
        self.store.free_space(&SpacePolicy::default())
    }

    fn user(&self, image: &Image, user: &str) -> Result<User, flotilla_images::ResolveUserError> {
        flotilla_images::resolve_user(image, user)
    }

    async fn set_up_volumes(&self, order: VolumesOrder) -> Result<(), Vec<SetUpError>> {
        volumes::set_up(self, order).await
    }

    fn shown_tokens(&self, pod: &Pod) -> BTreeMap<TokenWanted, String> {
        self.volumes.shown_tokens(pod)
    }

    fn mounts(
        &self,
        pod: &Pod,
        references: &References,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, MountError> {
        self.volumes.mounts(pod, references, container, env)
    }

    async fn remove_volumes(&self, uid: &str) -> Result<(), RemoveVolumesError> {
        volumes::remove(self, uid).await
    }

    fn measurable_volumes(&self, pod: &Pod, references: &References) -> Vec<VolumePlace> {
        self.volumes.measurable(pod, references)
    }

    fn disk_bytes(&self, name: &str) -> Option<u64> {
        self.volumes.disk_bytes(name)
    }

    async fn grow_disk(&self, name: &str, bytes: u64) -> Result<(), ChangeDiskError> {
        volumes::change_disk(self, name, move |volumes, name| volumes.grow_disk(name, bytes)).await
    }

    async fn remove_disk(&self, name: &str) -> Result<(), ChangeDiskError> {
        volumes::change_disk(self, name, |volumes, name| volumes.remove_disk(name)).await
    }

    async fn make_sandbox(&self, spec: SandboxSpec) -> Result<Vec<IpAddr>, MakeSandboxError> {
        let uid = spec.uid.clone();
        if let Some(old) = self.sandbox(&uid) {
            old.destroy().await.map_err(MakeSandboxError::Old)?;
            self.sandboxes().remove(&uid);
        }
        let host_network = spec.host_network;
        let sandbox = self
            .runtime
            .run_sandbox(spec)
            .await
            .map_err(MakeSandboxError::Run)?;
        self.sandboxes().insert(uid.clone(), sandbox.clone());
        if host_network {
            return Ok(Vec::new());
        }
        let address = self
            .network
            .attach(&uid, &sandbox.netns())
            .await
            .map_err(MakeSandboxError::Network)?;
        Ok(vec![address])
    }

    async fn remove_sandbox(&self, uid: &str) -> Result<(), RemoveSandboxError> {
        if let Some(sandbox) = self.sandbox(uid) {
            sandbox.destroy().await.map_err(RemoveSandboxError::Destroy)?;
        }
        self.network
            .detach(uid)
            .await
            .map_err(RemoveSandboxError::Network)?;
        self.policies.change(|model| model.local_pod_gone(uid));
        self.release_images(uid).map_err(RemoveSandboxError::Images)?;
        self.sandboxes().remove(uid);
        Ok(())
    }

    async fn start(&self, uid: &str, spec: ContainerSpec) -> Result<Started, StartContainerError> {
        match self.sandbox(uid) {
            Some(sandbox) => sandbox.start_container(spec).await,
            None => Err(StartContainerError::Shim(ShimError::Gone)),
        }
    }

    async fn signal(&self, uid: &str, id: &str, signal: i32) -> Result<(), KillContainerError> {
        match self.sandbox(uid) {
            Some(sandbox) => sandbox.kill(id, signal).await,
            None => Err(KillContainerError::Unknown { id: id.to_owned() }),
        }
    }

    async fn remove_container(&self, uid: &str, id: &str) -> Result<(), RemoveContainerError> {
        match self.sandbox(uid) {
            Some(sandbox) => sandbox.remove_container(id).await,
            None => Ok(()),
        }
    }

    async fn resize(
        &self,
        uid: &str,
        containers: Vec<(String, Resources)>,
        pod: Resources,
    ) -> Result<(), ResizeError> {
        let sandbox = self.sandbox(uid).ok_or(ResizeError::NoSandbox)?;
        // No container may exceed its pod: the pod has no limit while its containers are changed.
        let free = Resources {
            cpu_shares: pod.cpu_shares,
            ..Resources::default()
        };
        sandbox.update_pod_resources(free).await?;
        for (id, resources) in containers {
            sandbox.update_resources(&id, resources).await?;
        }
        Ok(sandbox.update_pod_resources(pod).await?)
    }

    async fn command(
        &self,
        uid: &str,
        id: &str,
        args: Vec<String>,
        limit: Duration,
    ) -> Result<CommandOutput, CommandError> {
        let sandbox = self.sandbox(uid).ok_or(CommandError::NoSandbox)?;
        command::run(&sandbox, id, args, limit).await
    }

    fn observe(&self, uid: &str) -> Option<Observation> {
        let sandbox = self.sandbox(uid)?;
        Some(Observation {
            is_alive: sandbox.shim_alive(),
            containers: sandbox.containers(),
        })
    }

    fn changes(&self, uid: &str) -> Option<watch::Receiver<u64>> {
        Some(self.sandbox(uid)?.exits())
    }

    async fn exec(&self, uid: &str, spec: ExecSpec) -> Result<Exec, ExecError> {
        match self.sandbox(uid) {
            Some(sandbox) => sandbox.exec(spec).await,
            None => Err(ExecError::Unknown { id: spec.container }),
        }
    }

    async fn attach(&self, uid: &str, id: &str, spec: AttachSpec) -> Result<Exec, ExecError> {
        match self.sandbox(uid) {
            Some(sandbox) => sandbox.attach(id, spec).await,
            None => Err(ExecError::Unknown { id: id.to_owned() }),
        }
    }

    async fn connect(&self, uid: &str, port: u16) -> Result<TcpStream, ConnectPortError> {
        let sandbox = self.sandbox(uid).ok_or(ConnectPortError::NoSandbox)?;
        let netns = sandbox.netns();
        let connected = tokio::task::spawn_blocking(move || port::connect(&netns, port)).await;
        let refused = |source| ConnectPortError::Connect { port, source };
        let connection = connected
            .map_err(|_| ConnectPortError::Cancelled)?
            .map_err(refused)?;
        // Small writes of interactive protocols must not wait for acknowledgements.
        let connection = connection
            .set_nodelay(true)
            .and_then(|()| connection.set_nonblocking(true))
            .map(|()| connection);
        connection.and_then(TcpStream::from_std).map_err(refused)
    }

    fn usage(&self, uid: &str) -> Option<PodUsage> {
        let (whole, containers) = self.sandbox(uid)?.usage();
        Some(PodUsage { whole, containers })
    }

    fn traffic(&self) -> BTreeMap<String, Traffic> {
        self.network.traffic()
    }

    async fn collect_images(&self) -> Result<(), StoreError> {
        // All that nobody needs, however full the disk is and however lately they were used: pods are next.
        let all = SpacePolicy {
            high_percent: 0,
            low_percent: 0,
            age_min: Duration::ZERO,
        };
        let store = self.store.clone();
        let freed = tokio::task::spawn_blocking(move || store.free_space(&all)).await;
        // A collection that was cut short at shutdown is done by the next one.
        freed.unwrap_or_else(|_| Ok(Freed::default())).map(drop)
    }

    fn limit_pods(&self, resources: &Resources) -> std::io::Result<()> {
        self.runtime.limit_pods(resources)
    }

    async fn configure(&self, config: NodeConfig) -> Result<(), NetworkError> {
        self.network.configure(config).await
    }

    async fn set_routes(&self, routes: Vec<Route>) -> Result<(), NetworkError> {
        self.network.set_routes(routes).await
    }

    fn policies(&self) -> flotilla_policies::SharedModel {
        self.policies.clone()
    }

    async fn admit(&self, uid: &str, pod: &Pod, address: Ipv4Addr) -> Result<(), AdmitError> {
        self.policies.admit(uid, pod, address).await
    }

    async fn enforce(&self, shutdown: CancellationToken) {
        if let Err(error) = Engine::new(self.policies.clone()).run(shutdown.clone()).await {
            tracing::error!(
                error = report(&error),
                "network policies are not enforced, and no pod starts"
            );
            shutdown.cancelled().await;
        }
    }

    async fn serve(
        &self,
        options: flotilla_services::Options,
        shared: SharedModel,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) {
        services::serve(&self.network, options, shared, tracker, shutdown).await;
    }
}
