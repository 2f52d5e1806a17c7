//! What the agent needs of the machine under it: images, sandboxes, containers, network.
//!
//! [`LocalMachine`] is the real one. Tests put another behind [`Machine`].

mod command;
#[cfg(test)]
pub(crate) mod fake;
mod images;
mod local;
mod port;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flotilla_images::{Freed, Image, ImageSummary, Keyring, Peers, Progress, Pulled, StoreError, User};
use flotilla_lifecycle::References;
use flotilla_network::{NetworkError, NodeConfig, Route, Traffic};
use flotilla_policies::AdmitError;
use flotilla_runtime::{
    AttachSpec, ContainerSpec, ContainerState, DestroySandboxError, Exec, ExecError, ExecSpec,
    KillContainerError, Mount, RemoveContainerError, Resources, RunSandboxError, SandboxSpec,
    StartContainerError, Started, UpdateResourcesError,
};
use flotilla_services::SharedModel;
use flotilla_volumes::{DiskError, MountError, SetUpError, TearDownError, TokenWanted, VolumePlace};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use local::LocalMachine;
pub(crate) use port::ConnectPortError;
pub(crate) use volumes::VolumesOrder;

use crate::stats::PodUsage;

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeSandboxError {
    #[error("cannot remove the sandbox before")]
    Old(#[source] DestroySandboxError),
    #[error("cannot run the sandbox")]
    Run(#[source] RunSandboxError),
    #[error("cannot attach the network")]
    Network(#[source] NetworkError),
}

/// Why a sandbox could not be taken down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveSandboxError {
    #[error("cannot detach the network")]
    Network(#[source] NetworkError),
    #[error("cannot destroy the sandbox")]
    Destroy(#[source] DestroySandboxError),
    #[error("cannot release the images")]
    Images(#[source] StoreError),
}

/// Why a disk stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeDiskError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the change was cut short")]
    Cancelled,
}

/// Why something of a pod's volumes is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveVolumesError {
    #[error(transparent)]
    TearDown(#[from] TearDownError),
    #[error("the removal was cut short")]
    Cancelled,
}

/// Why an image could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindImageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the lookup was cut short")]
    Cancelled,
}

/// Why a command in a container has no exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("there is no such sandbox")]
    NoSandbox,
    #[error("cannot run the command")]
    Exec(#[from] ExecError),
    #[error("cannot read what the command says")]
    Read(#[source] std::io::Error),
    #[error("the command takes too long")]
    TimedOut,
}

/// Why limits cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error("there is no such sandbox")]
    NoSandbox,
    #[error("cannot change limits")]
    Update(#[from] UpdateResourcesError),
}

/// What became of a command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    /// The first of what it said, on stdout and stderr.
    pub(crate) output: Vec<u8>,
}

/// What the runtime knows of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observation {
    /// Containers can be started in its sandbox.
    pub(crate) is_alive: bool,
    pub(crate) containers: Vec<ContainerState>,
}

/// Images, sandboxes, containers and network of one node. Pods are named by their uid.
#[async_trait]
pub(crate) trait Machine: Send + Sync + 'static {
    /// Takes over what an earlier agent left; returns the uids.
    async fn adopt(&self) -> Vec<String>;
    fn images(&self) -> Result<Vec<ImageSummary>, StoreError>;
    /// The image, kept from removal for this container until the pod's sandbox goes.
    async fn find_image(
        &self,
        reference: &str,
        uid: &str,
        container: &str,
    ) -> Result<Option<Image>, FindImageError>;
    /// Brings the image from a registry. `told` hears now and then how far it is.
    async fn pull(
        &self,
        reference: &str,
        keyring: Keyring,
        is_always: bool,
        told: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, String>;
    /// From now on other nodes are asked for images before registries.
    fn set_peers(&self, peers: Arc<dyn Peers>);
    /// An image as other nodes may know it by its name.
    fn describe_for_peers(&self, reference: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// A layer as other nodes get it.
    fn layer_for_peers(&self, diff_id: &str) -> Result<Option<std::fs::File>, StoreError>;
    /// Removes images that nobody needs when the disk is too full.
    fn free_space(&self) -> Result<Freed, StoreError>;
    fn user(&self, image: &Image, user: &str) -> Result<User, flotilla_images::ResolveUserError>;
    /// Makes the volumes, or brings them up to date. Those that cannot be are named.
    async fn set_up_volumes(&self, order: VolumesOrder) -> Result<(), Vec<SetUpError>>;
    /// What is in the tokens that the pod's volumes show now.
    fn shown_tokens(&self, pod: &Pod) -> BTreeMap<TokenWanted, String>;
    /// What the container is to see of its pod's volumes.
    fn mounts(
        &self,
        pod: &Pod,
        references: &References,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, MountError>;
    async fn remove_volumes(&self, uid: &str) -> Result<(), RemoveVolumesError>;
    /// Where what the pod's volumes hold can be counted.
    fn measurable_volumes(&self, pod: &Pod, references: &References) -> Vec<VolumePlace>;
    /// How much the disk of a persistent volume holds; nothing when it is not here.
    fn disk_bytes(&self, name: &str) -> Option<u64>;
    async fn grow_disk(&self, name: &str, bytes: u64) -> Result<(), ChangeDiskError>;
    async fn remove_disk(&self, name: &str) -> Result<(), ChangeDiskError>;
    /// Makes namespaces and network; what there was of the pod before goes first.
    async fn make_sandbox(&self, spec: SandboxSpec) -> Result<Vec<IpAddr>, MakeSandboxError>;
    async fn remove_sandbox(&self, uid: &str) -> Result<(), RemoveSandboxError>;
    async fn start(&self, uid: &str, spec: ContainerSpec) -> Result<Started, StartContainerError>;
    async fn signal(&self, uid: &str, id: &str, signal: i32) -> Result<(), KillContainerError>;
    async fn remove_container(&self, uid: &str, id: &str) -> Result<(), RemoveContainerError>;
    /// Gives a pod and its running containers other limits.
    async fn resize(
        &self,
        uid: &str,
        containers: Vec<(String, Resources)>,
        pod: Resources,
    ) -> Result<(), ResizeError>;
    /// Runs a command in a container and waits for its end; one that takes longer than `limit` is killed.
    async fn command(
        &self,
        uid: &str,
        id: &str,
        args: Vec<String>,
        limit: Duration,
    ) -> Result<CommandOutput, CommandError>;
    /// None when there is no sandbox.
    fn observe(&self, uid: &str) -> Option<Observation>;
    /// Changes when a container ended or the sandbox died.
    fn changes(&self, uid: &str) -> Option<watch::Receiver<u64>>;
    /// Runs a program in a running container.
    async fn exec(&self, uid: &str, spec: ExecSpec) -> Result<Exec, ExecError>;
    /// Joins the streams of a running container.
    async fn attach(&self, uid: &str, id: &str, spec: AttachSpec) -> Result<Exec, ExecError>;
    /// A connection to a port inside the pod.
    async fn connect(&self, uid: &str, port: u16) -> Result<TcpStream, ConnectPortError>;
    /// What the pod uses. None when there is no sandbox.
    fn usage(&self, uid: &str) -> Option<PodUsage>;
    /// How much came to and went from each pod, by uid.
    fn traffic(&self) -> BTreeMap<String, Traffic>;
    /// Removes images that no container uses.
    async fn collect_images(&self) -> Result<(), StoreError>;
    /// Limits what all pods may use together.
    fn limit_pods(&self, resources: &Resources) -> std::io::Result<()>;
    async fn configure(&self, config: NodeConfig) -> Result<(), NetworkError>;
    async fn set_routes(&self, routes: Vec<Route>) -> Result<(), NetworkError>;
    /// What is known for the network policies of this machine's pods.
    fn policies(&self) -> flotilla_policies::SharedModel;
    /// Returns once the kernel knows what the pod at this address may send and receive.
    async fn admit(&self, uid: &str, pod: &Pod, address: Ipv4Addr) -> Result<(), AdmitError>;
    /// Enforces network policies until shutdown.
    async fn enforce(&self, shutdown: CancellationToken);
    /// Programs services until shutdown.
    async fn serve(
        &self,
        options: flotilla_services::Options,
        shared: SharedModel,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    );
}
