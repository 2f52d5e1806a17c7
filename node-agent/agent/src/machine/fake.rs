//! A machine without containers, for tests: records what it is asked to do, and ends processes when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use flotilla_images::{
    Freed, Image, ImageConfig, ImageSummary, Keyring, Peers, Progress, Pulled, ResolveUserError, StoreError,
    User,
};
use flotilla_lifecycle::References;
use flotilla_network::{NetworkError, NodeConfig, Route, Traffic};
use flotilla_policies::AdmitError;
use flotilla_runtime::{
    AttachSpec, ContainerSpec, ContainerState, Exec, ExecError, ExecSpec, Exit, KillContainerError, Mount,
    RemoveContainerError, Resources, SandboxSpec, ShimError, StartContainerError, Started, Usage,
};
use flotilla_volumes::{MountError, SetUpError, TokenWanted, VolumePlace};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{
    ChangeDiskError, CommandError, CommandOutput, ConnectPortError, FindImageError, Machine,
    MakeSandboxError, Observation, RemoveSandboxError, RemoveVolumesError, ResizeError, VolumesOrder,
};
use crate::stats::PodUsage;

/// Images that exist; all others do not.
pub(crate) const IMAGE: &str = "demo:v1";
/// An image whose registry never answers.
pub(crate) const SLOW_IMAGE: &str = "slow:v1";
/// A command that cannot be found.
pub(crate) const NO_COMMAND: &str = "/missing";

#[derive(Default)]
pub(crate) struct FakeMachine {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    policies: flotilla_policies::SharedModel,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Observation>,
    specs: BTreeMap<String, ContainerSpec>,
    log: Vec<String>,
    deaf: BTreeSet<String>,
    codes: BTreeMap<String, i32>,
    memory: BTreeMap<String, u64>,
    /// Policies are not known.
    is_ignorant: bool,
    places: Vec<VolumePlace>,
    /// So many changes of the network will be refused.
    refusals: u32,
}

impl FakeMachine {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What was asked so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Waits for the log to change.
    pub(crate) async fn until(&self, done: impl Fn(&[String]) -> bool) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if done(&self.log()) {
                return;
            }
            changes.changed().await.unwrap();
        }
    }

    /// The spec of a container that was started.
    pub(crate) fn spec(&self, id: &str) -> ContainerSpec {
        self.lock().specs[id].clone()
    }

    /// Ends a container's process.
    pub(crate) fn exit(&self, uid: &str, id: &str, code: i32) {
        let mut state = self.lock();
        if let Some(sandbox) = state.sandboxes.get_mut(uid) {
            let containers = sandbox
                .containers
                .iter_mut()
                .filter(|container| container.id == id);
            for container in containers {
                container.finished = Some(Exit {
                    code,
                    signal: None,
                    oom_killed: false,
                    finished_at: Timestamp::now(),
                    unknown: false,
                });
            }
        }
        drop(state);
        self.changes.send_modify(|version| *version += 1);
    }

    /// The pod uses so much memory.
    pub(crate) fn fill_memory(&self, uid: &str, bytes: u64) {
        self.lock().memory.insert(uid.to_owned(), bytes);
    }

    /// Every pod has these volumes.
    pub(crate) fn show_volumes(&self, places: Vec<VolumePlace>) {
        self.lock().places = places;
    }

    /// The container ignores signals but SIGKILL.
    pub(crate) fn deafen(&self, id: &str) {
        self.lock().deaf.insert(id.to_owned());
    }

    /// The exit code of a command from now on.
    pub(crate) fn command_ends_with(&self, program: &str, code: i32) {
        self.lock().codes.insert(program.to_owned(), code);
    }

    /// Whether network policies are known.
    pub(crate) fn knows_policies(&self, is_so: bool) {
        self.lock().is_ignorant = !is_so;
    }

    /// The next changes of the network are refused.
    pub(crate) fn refuses_networks(&self, times: u32) {
        self.lock().refusals = times;
    }

    fn refuse_once_asked(&self) -> Result<(), NetworkError> {
        let mut state = self.lock();
        let left = state.refusals.checked_sub(1);
        state.refusals = left.unwrap_or(0);
        left.map_or(Ok(()), |_| Err(NetworkError::NotConfigured))
    }

    /// The machine restarts: every sandbox is gone.
    pub(crate) fn reboot(&self) {
        self.lock().sandboxes.clear();
    }

    /// Adds a sandbox that nobody ordered.
    pub(crate) fn stray(&self, uid: &str) {
        self.lock().sandboxes.insert(
            uid.to_owned(),
            Observation {
                is_alive: true,
                containers: Vec::new(),
            },
        );
    }

    fn note(&self, entry: String) {
        self.lock().log.push(entry);
        self.changes.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[async_trait]
impl Machine for FakeMachine {
    async fn adopt(&self) -> Vec<String> {
        self.lock().sandboxes.keys().cloned().collect()
    }

    fn images(&self) -> Result<Vec<ImageSummary>, StoreError> {
        Ok(Vec::new())
    }

    async fn find_image(&self, reference: &str, _: &str, _: &str) -> Result<Option<Image>, FindImageError> {
        let image = Image {
            reference: format!("docker.io/library/{reference}"),
            id: "sha256:1".to_owned(),
            digest: None,
            is_pulled: false,
            config: ImageConfig {
                entrypoint: vec!["/demo".to_owned()],
                ..ImageConfig::default()
            },
            layers: vec![PathBuf::from("/layer")],
            size_bytes: 1,
        };
        Ok((reference == IMAGE).then_some(image))
    }

    async fn pull(
        &self,
        reference: &str,
        _: Keyring,
        _: bool,
        _: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, String> {
        self.note(format!("pull {reference}"));
        if reference == SLOW_IMAGE {
            std::future::pending::<()>().await;
        }
        Err(format!("{reference}: not found"))
    }

    fn set_peers(&self, _: Arc<dyn Peers>) {}

    fn describe_for_peers(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn layer_for_peers(&self, _: &str) -> Result<Option<std::fs::File>, StoreError> {
        Ok(None)
    }

    fn free_space(&self) -> Result<Freed, StoreError> {
        Ok(Freed::default())
    }

    fn user(&self, _: &Image, _: &str) -> Result<User, ResolveUserError> {
        Ok(User::default())
    }

    async fn set_up_volumes(&self, order: VolumesOrder) -> Result<(), Vec<SetUpError>> {
        self.note(format!(
            "volumes {}",
            order.pod.metadata.name.clone().unwrap_or_default()
        ));
        let volumes = order.pod.spec.unwrap_or_default().volumes.unwrap_or_default();
        let maps = volumes
            .into_iter()
            .filter_map(|volume| Some((volume.name, volume.config_map?.name)));
        let missing = maps.filter(|(_, map)| !order.references.config_maps.contains_key(map));
        let failures: Vec<SetUpError> = missing
            .map(|(volume, map)| SetUpError {
                volume,
                problem: format!("configmap \"{map}\" not found"),
            })
            .collect();
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    fn shown_tokens(&self, _: &Pod) -> BTreeMap<TokenWanted, String> {
        BTreeMap::new()
    }

    fn mounts(
        &self,
        _: &Pod,
        _: &References,
        container: &Container,
        _: &[(String, String)],
    ) -> Result<Vec<Mount>, MountError> {
        let mounts = container.volume_mounts.iter().flatten().map(|mount| Mount {
            source: PathBuf::from("/volumes").join(&mount.name),
            destination: PathBuf::from(&mount.mount_path),
            ..Mount::default()
        });
        Ok(mounts.collect())
    }

    fn measurable_volumes(&self, _: &Pod, _: &References) -> Vec<VolumePlace> {
        self.lock().places.clone()
    }

    fn disk_bytes(&self, _: &str) -> Option<u64> {
        None
    }

    async fn grow_disk(&self, name: &str, bytes: u64) -> Result<(), ChangeDiskError> {
        self.note(format!("grow {name} to {bytes}"));
        Ok(())
    }

    async fn remove_disk(&self, name: &str) -> Result<(), ChangeDiskError> {
        self.note(format!("remove disk {name}"));
        Ok(())
    }

    async fn remove_volumes(&self, uid: &str) -> Result<(), RemoveVolumesError> {
        self.note(format!("remove volumes {uid}"));
        Ok(())
    }

    async fn make_sandbox(&self, spec: SandboxSpec) -> Result<Vec<IpAddr>, MakeSandboxError> {
        let fresh = Observation {
            is_alive: true,
            containers: Vec::new(),
        };
        self.lock().sandboxes.insert(spec.uid.clone(), fresh);
        self.note(format!("sandbox {}", spec.name));
        Ok(vec!["10.42.1.2".parse().unwrap()])
    }

    async fn remove_sandbox(&self, uid: &str) -> Result<(), RemoveSandboxError> {
        self.lock().sandboxes.remove(uid);
        self.note(format!("remove {uid}"));
        Ok(())
    }

    async fn start(&self, uid: &str, spec: ContainerSpec) -> Result<Started, StartContainerError> {
        let started_at = Timestamp::now();
        if spec.args[0] == NO_COMMAND {
            return Err(StartContainerError::PathNotFound {
                command: spec.args[0].clone(),
            });
        }
        let id = spec.id.clone();
        {
            let mut state = self.lock();
            let gone = StartContainerError::Shim(ShimError::Gone);
            let sandbox = state.sandboxes.get_mut(uid).ok_or(gone)?;
            sandbox.containers.push(ContainerState {
                id: id.clone(),
                name: spec.name.clone(),
                attempt: spec.attempt,
                pid: 1,
                started_at,
                log_path: spec.log_path.clone(),
                finished: None,
            });
            state.specs.insert(id.clone(), spec);
        }
        self.note(format!("start {id}"));
        Ok(Started { pid: 1, started_at })
    }

    async fn signal(&self, uid: &str, id: &str, signal: i32) -> Result<(), KillContainerError> {
        self.note(format!("signal {id} {signal}"));
        if signal == 9 || !self.lock().deaf.contains(id) {
            self.exit(uid, id, 128 + signal);
        }
        Ok(())
    }

    async fn remove_container(&self, uid: &str, id: &str) -> Result<(), RemoveContainerError> {
        if let Some(sandbox) = self.lock().sandboxes.get_mut(uid) {
            sandbox.containers.retain(|container| container.id != id);
        }
        Ok(())
    }

    async fn resize(
        &self,
        _: &str,
        containers: Vec<(String, Resources)>,
        pod: Resources,
    ) -> Result<(), ResizeError> {
        for (id, resources) in containers {
            self.note(format!(
                "resize {id} {:?} {:?}",
                resources.cpu_quota, pod.cpu_quota
            ));
        }
        Ok(())
    }

    async fn command(
        &self,
        _: &str,
        id: &str,
        args: Vec<String>,
        _: Duration,
    ) -> Result<CommandOutput, CommandError> {
        self.note(format!("command {id} {}", args.join(" ")));
        let code = match args[0].as_str() {
            "slow" => return Err(CommandError::TimedOut),
            "hang" => std::future::pending().await,
            "false" => 1,
            _ => *self.lock().codes.get(&args[0]).unwrap_or(&0),
        };
        let output = format!("it said {}", args[0]).into_bytes();
        Ok(CommandOutput { code, output })
    }

    fn observe(&self, uid: &str) -> Option<Observation> {
        self.lock().sandboxes.get(uid).cloned()
    }

    fn changes(&self, uid: &str) -> Option<watch::Receiver<u64>> {
        self.lock()
            .sandboxes
            .contains_key(uid)
            .then(|| self.changes.subscribe())
    }

    /// No container has programs.
    async fn exec(&self, _: &str, spec: ExecSpec) -> Result<Exec, ExecError> {
        Err(ExecError::Command(StartContainerError::PathNotFound {
            command: spec.args[0].clone(),
        }))
    }

    async fn attach(&self, _: &str, id: &str, _: AttachSpec) -> Result<Exec, ExecError> {
        Err(ExecError::NotRunning { id: id.to_owned() })
    }

    /// Every pod has the ports of this machine.
    async fn connect(&self, uid: &str, port: u16) -> Result<TcpStream, ConnectPortError> {
        if !self.lock().sandboxes.contains_key(uid) {
            return Err(ConnectPortError::NoSandbox);
        }
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|source| ConnectPortError::Connect { port, source })
    }

    fn usage(&self, uid: &str) -> Option<PodUsage> {
        let state = self.lock();
        let sandbox = state.sandboxes.get(uid)?;
        let memory = state.memory.get(uid).copied().unwrap_or(0);
        let usage = Usage {
            memory_bytes: memory,
            working_set_bytes: memory,
            ..Usage::default()
        };
        let containers = sandbox
            .containers
            .iter()
            .map(|container| (container.id.clone(), usage));
        Some(PodUsage {
            whole: usage,
            containers: containers.collect(),
        })
    }

    fn traffic(&self) -> BTreeMap<String, Traffic> {
        BTreeMap::new()
    }

    async fn collect_images(&self) -> Result<(), StoreError> {
        self.note("collect images".to_owned());
        Ok(())
    }

    fn limit_pods(&self, resources: &Resources) -> std::io::Result<()> {
        self.note(format!("limit {:?}", resources.memory_limit));
        Ok(())
    }

    async fn configure(&self, config: NodeConfig) -> Result<(), NetworkError> {
        self.note(format!("network {}", config.pod_cidr));
        self.refuse_once_asked()
    }

    async fn set_routes(&self, routes: Vec<Route>) -> Result<(), NetworkError> {
        self.note(format!("routes {}", routes.len()));
        self.refuse_once_asked()
    }

    fn policies(&self) -> flotilla_policies::SharedModel {
        self.policies.clone()
    }

    async fn admit(&self, uid: &str, _: &Pod, _: Ipv4Addr) -> Result<(), AdmitError> {
        if self.lock().is_ignorant {
            self.note(format!("refuse {uid}"));
            return Err(AdmitError::Unknown);
        }
        Ok(())
    }

    async fn enforce(&self, shutdown: tokio_util::sync::CancellationToken) {
        shutdown.cancelled().await;
    }

    async fn serve(
        &self,
        _: flotilla_services::Options,
        _: flotilla_services::SharedModel,
        _: tokio_util::task::TaskTracker,
        shutdown: tokio_util::sync::CancellationToken,
    ) {
        shutdown.cancelled().await;
    }
}
