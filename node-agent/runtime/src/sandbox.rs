//! Brings a pod's namespaces, cgroup and shim up, and takes what is left of them down.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup::Cgroups;
use crate::layout::{Layout, SandboxRecord, remove_tree, write_json};
use crate::sys::{self, NamespaceHolder};
use crate::sysctl;
use crate::users::UserRange;

/// The namespaces that containers of a pod share.
const NAMESPACES: [&str; 3] = ["net", "ipc", "uts"];

/// How long processes may take to die of SIGKILL before they count as hanging in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub(crate) struct StepError {
    pub(crate) step: &'static str,
    pub(crate) source: io::Error,
}

trait During<T> {
    fn during(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step,
            source: error.into(),
        })
    }
}

/// Everything that bringing a sandbox up needs.
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) record: SandboxRecord,
    pub(crate) run_dir: PathBuf,
    pub(crate) executable: OwnedFd,
    pub(crate) cgroups: Cgroups,
}

/// Brings the sandbox up; returns the shim and a connection to it.
///
/// Changes the calling thread's namespaces: call it on a thread that ends right after.
pub(crate) fn bring_up(plan: &Plan) -> Result<(Child, UnixStream), StepError> {
    let Plan { layout, record, .. } = plan;
    let listener = make_files(layout, record)?;
    plan.cgroups
        .create_pod(&record.cgroup, &record.spec.resources)
        .during("make the cgroup")?;
    make_namespaces(record)?;
    bind_namespaces(layout, Path::new("/proc/thread-self/ns"))?;
    // The shim is a child of this thread, so it lives in the new namespaces.
    let shim = spawn_shim(plan, listener).during("start the shim")?;
    let connection = connect(&layout.run).during("connect to the shim")?;
    Ok((shim, connection))
}

fn make_files(layout: &Layout, record: &SandboxRecord) -> Result<UnixListener, StepError> {
    fs::create_dir_all(layout.containers()).during("make the pod's run folder")?;
    fs::create_dir_all(layout.oci_root()).during("make the pod's run folder")?;
    fs::create_dir_all(&layout.state).during("make the pod's state folder")?;
    fs::create_dir_all(&record.spec.log_dir).during("make the pod's log folder")?;
    write_json(&layout.record(), record).during("write the sandbox's record")?;
    with_short_path(&layout.run, |folder| {
        UnixListener::bind(folder.join(Layout::socket_name()))
    })
    .during("open the shim's socket")
}

fn make_namespaces(record: &SandboxRecord) -> Result<(), StepError> {
    let spec = &record.spec;
    match record.users {
        Some(users) => enter_namespaces_of(users).during("make the pod's user namespace")?,
        None => {
            let mut flags = CloneFlags::empty();
            flags.set(CloneFlags::CLONE_NEWIPC, !spec.host_ipc);
            flags.set(
                CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS,
                !spec.host_network,
            );
            unshare(flags).during("make the pod's namespaces")?;
        }
    }
    if !spec.host_network {
        nix::unistd::sethostname(&spec.hostname).during("set the host name")?;
        sys::bring_loopback_up().during("bring up the loopback device")?;
    }
    sysctl::apply(spec, record.users).during("set the pod's kernel parameters")
}

/// Makes namespaces that belong to a user namespace with these users, and enters them but not the latter: it would take
/// this thread's rights over the node, and those of the shim.
fn enter_namespaces_of(users: UserRange) -> io::Result<()> {
    let made = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let holder = NamespaceHolder::start(made)?;
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", holder.pid), users.map())?;
    }
    let holder_pid = Pid::from_raw(holder.pid).ok_or(Errno::ESRCH)?;
    let entered = ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    let holder_pidfd = pidfd_open(holder_pid, PidfdFlags::empty())?;
    Ok(move_into_thread_name_spaces(holder_pidfd.as_fd(), entered)?)
}

/// Mounts the namespaces that a process has (a folder `ns` in `/proc`) on the sandbox's files.
pub(crate) fn bind_namespaces(layout: &Layout, from: &Path) -> Result<(), StepError> {
    for kind in NAMESPACES {
        let file = layout.namespace(kind);
        File::create(&file).during("make the namespace's file")?;
        mount(
            Some(&from.join(kind)),
            &file,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .during("mount the namespace")?;
    }
    Ok(())
}

/// Whether the sandbox's files still stand for namespaces; mounts end with an agent's mount namespace.
pub(crate) fn has_namespaces(layout: &Layout) -> bool {
    rustix::fs::statfs(layout.namespace("net")).is_ok_and(|found| found.f_type == libc::NSFS_MAGIC)
}

fn spawn_shim(plan: &Plan, listener: UnixListener) -> io::Result<Child> {
    let log = File::create(plan.layout.shim_log())?;
    // Without a `pre_exec` hook this is a vfork, which does not copy the agent's page tables.
    Command::new(format!("/proc/self/fd/{}", plan.executable.as_raw_fd()))
        .arg0("flotilla")
        .arg("shim")
        .args([&plan.run_dir, &plan.layout.run])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
}

/// Connects to the shim's socket.
pub(crate) fn connect(pod_dir: &Path) -> io::Result<UnixStream> {
    with_short_path(pod_dir, |folder| {
        UnixStream::connect(folder.join(Layout::socket_name()))
    })
}

/// Runs `action` with a short name for `folder`: a socket's path has room for 107 bytes only.
pub(crate) fn with_short_path<T>(
    folder: &Path,
    action: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let folder = File::open(folder)?;
    action(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())))
}

/// Kills every process in the pod's cgroup and removes cgroup, mounts and files. What is gone already is fine.
pub(crate) fn take_down(layout: &Layout, cgroup: &str, cgroups: &Cgroups) -> Result<bool, StepError> {
    if !end_processes(cgroup, cgroups) {
        return Ok(false);
    }
    cgroups.remove(cgroup).during("remove the cgroup")?;
    for kind in NAMESPACES {
        match umount2(&layout.namespace(kind), MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno).during("unmount the namespace"),
        }
    }
    remove_tree(&layout.state).during("remove the state folder")?;
    // Last: as long as the record exists, a later agent finds the sandbox and goes on here.
    remove_tree(&layout.run).during("remove the run folder")?;
    Ok(true)
}

fn end_processes(cgroup: &str, cgroups: &Cgroups) -> bool {
    let begun = Instant::now();
    while !cgroups.processes(cgroup).is_empty() {
        if begun.elapsed() > KILL_LIMIT {
            return false;
        }
        cgroups.kill(cgroup);
        std::thread::sleep(KILL_PAUSE);
    }
    true
}
