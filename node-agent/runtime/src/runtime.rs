//! The agent's handle on all sandboxes of a node.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio_util::task::TaskTracker;

use crate::capabilities;
use crate::cgroup::{Cgroups, QosTree};
use crate::errors::{OpenRuntimeError, RunSandboxError};
use crate::layout::{Layout, SandboxRecord, is_usable_name, read_json, remove_tree};
use crate::pod::{Ledgers, Pod};
use crate::sandbox::{self, Plan};
use crate::seccomp;
use crate::spec::{PidNamespace, Resources, SandboxSpec};
use crate::sys;
use crate::sysctl;
use crate::users::{UserRange, UserRanges};
use flotilla_report::report;

/// The folder in `run_dir` that is mounted on itself, so that a shim can shed all pods' mounts at once. One of our
/// own: `run_dir` may be a mount point already, and shedding that would uncover the folder below it.
const SANDBOXES: &str = "pods";

/// Where the runtime keeps what.
#[derive(Clone, Debug)]
pub struct Options {
    /// On disk; writable layers of containers.
    pub state_dir: PathBuf,
    /// On a tmpfs or disk: sockets, namespaces, bundles, exit codes. Gone after a reboot, like the pods.
    pub run_dir: PathBuf,
    /// Where pods' volumes are mounted, in a folder named after each pod's uid. A pod's processes see their own
    /// only; what is mounted there after the sandbox was made they do not see.
    pub volumes_dir: Option<PathBuf>,
    /// Absolute cgroup under which pods get theirs, such as `/flotilla/node-1`.
    pub cgroup_parent: String,
    /// Re-executed as `<executable> shim …`.
    pub executable: PathBuf,
    /// The operator's own seccomp profiles, JSON files as the OCI runtime specification has them.
    pub seccomp_profiles: PathBuf,
}

/// Makes sandboxes and finds those of an earlier agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// The executable, through a mount that nobody can write through.
    executable: OwnedFd,
    cgroups: Cgroups,
    qos: Arc<QosTree>,
    users: Arc<UserRanges>,
    seccomp: seccomp::Folders,
    /// One task per connected shim and per container without one; they end with their process.
    tasks: TaskTracker,
}

impl Runtime {
    /// Prepares the folders; starts nothing.
    pub fn new(options: Options) -> Result<Runtime, OpenRuntimeError> {
        for folder in [&options.state_dir, &options.run_dir] {
            prepare_folder(folder).map_err(|source| folder_error(folder, source))?;
        }
        let seccomp = seccomp::Folders {
            profiles: options.seccomp_profiles.clone(),
            compiled: canonical(&options.run_dir)?.join("seccomp"),
        };
        // Links are resolved: the shim has to find in its mount table what it is told.
        let options = Options {
            state_dir: canonical(&options.state_dir)?,
            run_dir: canonical(&options.run_dir)?.join(SANDBOXES),
            ..options
        };
        prepare_folder(&options.run_dir).map_err(|source| folder_error(&options.run_dir, source))?;
        mount_privately(&options.run_dir).map_err(|source| folder_error(&options.run_dir, source))?;
        let executable =
            sys::open_sealed(&options.executable).map_err(|source| OpenRuntimeError::Executable {
                path: options.executable.clone(),
                source,
            })?;
        let cgroups =
            Cgroups::detect().map_err(|source| folder_error(Path::new("/sys/fs/cgroup"), source))?;
        let usual = capabilities::usual(capabilities::bounding_set(), !cgroups.is_unified());
        seccomp::prepare(&seccomp, usual).map_err(|source| folder_error(&seccomp.compiled, source))?;
        let qos = Arc::new(QosTree::new(cgroups.clone(), &options.cgroup_parent));
        let users = Arc::new(users_taken(&options.run_dir));
        let shared = Shared {
            options,
            executable,
            cgroups,
            qos,
            users,
            seccomp,
            tasks: TaskTracker::new(),
        };
        Ok(Runtime {
            shared: Arc::new(shared),
        })
    }

    /// Makes a pod's namespaces and cgroup and starts its shim.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Pod, RunSandboxError> {
        let uid = spec.uid.clone();
        if !is_usable_name(&uid) {
            return Err(RunSandboxError::BadUid { uid });
        }
        let shares_with_node = spec.host_network || spec.host_ipc || spec.pids == PidNamespace::Node;
        if spec.user_namespace && shares_with_node {
            return Err(RunSandboxError::UsersOfNode);
        }
        sysctl::check(&spec)?;
        let layout = self.layout(&uid);
        if layout.run.exists() {
            return Err(RunSandboxError::Exists { uid });
        }
        let record = SandboxRecord {
            cgroup: self.shared.qos.pod(spec.qos, &uid),
            state: layout.state.clone(),
            volumes_dir: self.shared.options.volumes_dir.clone(),
            seccomp: self.shared.seccomp.clone(),
            users: self.users_for(&spec)?,
            spec,
        };
        let plan = self.plan(layout.clone(), record.clone())?;
        let users = Arc::clone(&self.shared.users);
        let (shim, connection) =
            on_own_thread(move || sandbox::bring_up(&plan).inspect_err(|_| undo(&plan, &users)))
                .await
                .map_err(|error| RunSandboxError::Step {
                    step: error.step,
                    source: error.source,
                })?;
        let pod = Pod::new(
            layout,
            record,
            self.shared.cgroups.clone(),
            self.ledgers(),
            self.shared.tasks.clone(),
        );
        if let Err(source) = pod.listen_to_shim(connection, Some(shim)).await {
            if let Err(error) = pod.destroy().await {
                tracing::warn!(
                    pod = uid,
                    error = report(&error),
                    "a sandbox that failed to start leaves something"
                );
            }
            return Err(RunSandboxError::Shim { uid, source });
        }
        Ok(pod)
    }

    fn ledgers(&self) -> Ledgers {
        Ledgers {
            qos: Arc::clone(&self.shared.qos),
            users: Arc::clone(&self.shared.users),
        }
    }

    fn users_for(&self, spec: &SandboxSpec) -> Result<Option<UserRange>, RunSandboxError> {
        match spec.user_namespace {
            false => Ok(None),
            true => match self.shared.users.take(&spec.uid) {
                Some(range) => Ok(Some(range)),
                None => Err(RunSandboxError::NoUsersLeft),
            },
        }
    }

    fn plan(&self, layout: Layout, record: SandboxRecord) -> Result<Plan, RunSandboxError> {
        let executable = self.shared.executable.try_clone();
        Ok(Plan {
            layout,
            record,
            run_dir: self.shared.options.run_dir.clone(),
            executable: executable.map_err(|source| RunSandboxError::Step {
                step: "open the executable",
                source,
            })?,
            cgroups: self.shared.cgroups.clone(),
        })
    }

    /// Limits what all pods may use together, whatever each of them may use.
    pub fn limit_pods(&self, resources: &Resources) -> io::Result<()> {
        let options = &self.shared.options;
        self.shared.cgroups.limit_all(&options.cgroup_parent, resources)
    }

    /// Finds all sandboxes on this node, with live shim or without, and listens to their exits again.
    ///
    /// Leftovers of sandboxes that were not yet whole, or not quite removed, are removed.
    pub async fn adopt(&self) -> Vec<Pod> {
        let mut pods = Vec::new();
        for uid in folder_names(&self.shared.options.run_dir) {
            let layout = self.layout(&uid);
            match read_json::<SandboxRecord>(&layout.record()) {
                Ok(record) => pods.push(self.adopt_pod(layout, record).await),
                // A whole sandbox has a record, in one piece.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let (candidates, cgroups) =
                        (self.shared.qos.candidates(&uid), self.shared.cgroups.clone());
                    blocking(move || {
                        let mut all = candidates.iter();
                        all.try_for_each(|cgroup| sandbox::take_down(&layout, cgroup, &cgroups).map(drop))
                    })
                    .await;
                }
                Err(error) => {
                    tracing::warn!(
                        pod = uid,
                        error = report(&error),
                        "a sandbox's record cannot be read"
                    );
                }
            }
        }
        self.remove_orphaned_state().await;
        pods
    }

    async fn adopt_pod(&self, layout: Layout, record: SandboxRecord) -> Pod {
        let pod = Pod::new(
            layout.clone(),
            record,
            self.shared.cgroups.clone(),
            self.ledgers(),
            self.shared.tasks.clone(),
        );
        let attached = match sandbox::connect(&layout.run) {
            Ok(connection) => pod
                .listen_to_shim(connection, None)
                .await
                .map_err(|error| report(&error)),
            Err(error) => Err(report(&error)),
        };
        if let Err(reason) = attached {
            tracing::warn!(pod = pod.uid(), reason, "the shim is gone");
            pod.adopt_without_shim();
        } else if !sandbox::has_namespaces(&layout)
            && let Err(error) = pod.bind_namespaces_again()
        {
            tracing::warn!(
                pod = pod.uid(),
                error = report(&error),
                "no file stands for the pod's namespaces"
            );
        }
        pod
    }

    /// Writable layers of pods that a reboot has ended.
    async fn remove_orphaned_state(&self) {
        for uid in folder_names(&self.shared.options.state_dir) {
            let layout = self.layout(&uid);
            if !layout.run.exists() {
                blocking(move || remove_tree(&layout.state)).await;
            }
        }
    }

    fn layout(&self, uid: &str) -> Layout {
        Layout::new(&self.shared.options.run_dir, &self.shared.options.state_dir, uid)
    }

    /// Undoes [`Runtime::new`] once no sandbox is left.
    pub fn close(&self) -> Result<(), OpenRuntimeError> {
        self.shared.qos.close();
        let run_dir = &self.shared.options.run_dir;
        umount2(run_dir, MntFlags::MNT_DETACH).map_err(|errno| folder_error(run_dir, errno.into()))
    }
}

fn folder_error(path: &Path, source: io::Error) -> OpenRuntimeError {
    OpenRuntimeError::Folder {
        path: path.to_owned(),
        source,
    }
}

fn prepare_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711))
}

fn canonical(folder: &Path) -> Result<PathBuf, OpenRuntimeError> {
    fs::canonicalize(folder).map_err(|source| folder_error(folder, source))
}

/// Makes the folder a private mount point: namespaces mounted below stay out of other mount namespaces, and a
/// shim gets rid of all of them at once.
fn mount_privately(folder: &Path) -> io::Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let is_mounted = mountinfo
        .lines()
        .any(|line| line.split(' ').nth(4).map(Path::new) == Some(folder));
    if !is_mounted {
        mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(mount(
        None::<&str>,
        folder,
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )?)
}

fn folder_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_usable_name(name)).collect()
}

/// The ranges of users that sandboxes of an earlier agent have.
fn users_taken(run_dir: &Path) -> UserRanges {
    let users = UserRanges::default();
    for uid in folder_names(run_dir) {
        let record = read_json::<SandboxRecord>(&run_dir.join(&uid).join(SandboxRecord::FILE));
        if let Ok(Some(range)) = record.map(|record| record.users) {
            users.remember(&uid, range);
        }
    }
    users
}

/// Removes what a failed start of a sandbox has made so far.
fn undo(plan: &Plan, users: &UserRanges) {
    match sandbox::take_down(&plan.layout, &plan.record.cgroup, &plan.cgroups) {
        Ok(true) => users.release(&plan.record.spec.uid),
        Ok(false) => {}
        Err(error) => tracing::warn!(
            error = report(&error),
            "a sandbox that failed to start leaves something"
        ),
    }
}

/// Runs `work` on a thread that ends with it: it changes the thread's namespaces.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, sandbox::StepError> + Send + 'static,
) -> Result<T, sandbox::StepError> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let failed = |source| sandbox::StepError {
        step: "start a thread",
        source,
    };
    std::thread::Builder::new()
        .name("sandbox".to_owned())
        // The caller has given up when nobody receives; the sandbox is then found by `adopt`.
        .spawn(move || drop(tx.send(work())))
        .map_err(failed)?;
    rx.await
        .map_err(|_| failed(io::Error::other("the thread panicked")))?
}

/// Runs blocking work whose failure only leaves something behind for the next try.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                error = report(&error),
                "leftovers of a sandbox could not be removed"
            );
        }
        Err(error) => tracing::warn!(
            error = report(&error),
            "leftovers of a sandbox could not be removed"
        ),
    }
}
