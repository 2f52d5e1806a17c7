//! The process between an agent and the containers of one pod.
//!
//! One thread, one poll loop ([`serve`]); whatever may take time or calls libcontainer happens in a fork.
//! Holds the containers' pipes and exit codes, so that agents may come and go.

mod client;
mod create;
mod devices;
mod exec;
mod executor;
mod log;
mod mapping;
mod oci;
mod pause;
mod privileges;
mod remove;
mod report;
mod rootfs;
mod serve;
mod staging;
mod sub_path;
mod tee;
mod terminal;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, setsid};

use self::mapping::Users;
use crate::cgroup::Cgroups;
use crate::layout::{Layout, SandboxRecord, read_json};
use crate::spec::{PidNamespace, Resources};
use crate::sys;

/// Size of a pod's shared memory, as Docker and containerd have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// Runs a shim; the entry of the hidden verb `flotilla shim`, called first thing in `main`, with the
/// arguments after the verb: the runtime's `run_dir` and the pod's folder in it. The listening socket is
/// standard input.
///
/// *Assumes* that the process has no other thread.
pub fn shim_main(args: impl Iterator<Item = OsString>) -> ! {
    let code = match run(args) {
        Ok(()) => 0,
        Err(error) => {
            // Standard error is the shim's log file; there is no other place to report to.
            write_error(&error);
            1
        }
    };
    std::process::exit(code)
}

fn write_error(error: &io::Error) {
    use io::Write;
    writeln!(io::stderr(), "shim: {error}").ok();
}

fn run(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let (Some(run_dir), Some(pod_dir)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: shim RUN_DIR POD_DIR"));
    };
    if sys::thread_count()? != 1 {
        return Err(io::Error::other("the shim must be started before any thread"));
    }
    let pod_dir = PathBuf::from(pod_dir);
    let sandbox: SandboxRecord = read_json(&pod_dir.join(SandboxRecord::FILE))?;
    let layout = Layout {
        run: pod_dir,
        state: sandbox.state.clone(),
    };
    let listener = take_listener()?;
    // Fails only for the leader of a process group, which is as good.
    setsid().ok();
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    sys::become_subreaper(c"flotilla-shim")?;
    let signals = watch_children()?;
    let cgroups = Cgroups::detect()?;
    warm_up(&cgroups, &sandbox.cgroup)?;
    let node_mounts = OwnedFd::from(File::open("/proc/self/ns/mnt")?);
    enter_mount_namespace(Path::new(&run_dir), &layout, &sandbox)?;
    let cgroups = hide_cgroups(cgroups)?;
    let users = sandbox.users.map(Users::of_pod).transpose()?;
    let pause = match sandbox.spec.pids {
        PidNamespace::Pod => Some(pause::start(&layout, &cgroups, &sandbox.cgroup, users.as_ref())?),
        PidNamespace::Container | PidNamespace::Node => None,
    };
    let pod = serve::PodPlace {
        layout,
        sandbox,
        cgroups,
        pause,
        node_mounts,
        users,
    };
    serve::Shim::new(pod, listener, signals).serve()
}

/// Takes the listening socket from standard input, which containers must not inherit.
fn take_listener() -> io::Result<UnixListener> {
    let listener = UnixListener::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    nix::unistd::dup2_stdin(sys::null_device()?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn watch_children() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// On v2, moves a throw-away process into the pod's cgroup: the first move waits some 10 ms for the kernel,
/// others soon after do not, and now nobody is waiting yet.
fn warm_up(cgroups: &Cgroups, cgroup: &str) -> io::Result<()> {
    if cgroups.is_unified()
        && let ForkResult::Child = sys::fork()?
    {
        // In a folder of its own: one with controllers enabled for its children holds no process.
        let warm = format!("{cgroup}/warm");
        let joined = cgroups
            .create_container(&warm, &Resources::default(), false)
            .and_then(|()| cgroups.join(&warm));
        sys::exit_now(if joined.is_ok() { 0 } else { 1 });
    }
    Ok(())
}

/// Gives this pod's mounts a namespace of their own, without those of the other pods: each container's
/// creation copies all mounts that it sees, and a copy would keep another pod's namespaces alive.
fn enter_mount_namespace(run_dir: &Path, layout: &Layout, sandbox: &SandboxRecord) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    if let Some(volumes) = &sandbox.volumes_dir {
        shed_other_volumes(volumes, &sandbox.spec.uid)?;
    }
    // The runtime has mounted `run_dir` on itself, so the same files appear below.
    umount2(run_dir, MntFlags::MNT_DETACH)?;
    std::fs::create_dir_all(layout.shm())?;
    if sandbox.spec.host_ipc {
        let flags = MsFlags::MS_BIND;
        return Ok(mount(
            Some("/dev/shm"),
            &layout.shm(),
            None::<&str>,
            flags,
            None::<&str>,
        )?);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = match sandbox.users {
        Some(users) => format!("{SHM_OPTIONS},uid={0},gid={0}", users.first),
        None => SHM_OPTIONS.to_owned(),
    };
    mount(
        Some("shm"),
        &layout.shm(),
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )?;
    Ok(())
}

/// Keeps of all pods' volumes only those of this one. A copy of another's mount would keep its disk busy after its end.
fn shed_other_volumes(volumes: &Path, uid: &str) -> io::Result<()> {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
    let own = volumes.join(uid);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let kept = match open_tree(rustix::fs::CWD, &own, flags) {
        Ok(kept) => Some(kept),
        Err(rustix::io::Errno::NOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    match umount2(volumes, MntFlags::MNT_DETACH) {
        Ok(()) => {}
        // Nothing is mounted there, and then no volume either.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let Some(kept) = kept else { return Ok(()) };
    // A file system of its own: the folders below are shared with the node.
    mount(
        Some("volumes"),
        volumes,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0711"),
    )?;
    std::fs::create_dir(&own)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&kept, "", rustix::fs::CWD, &own, flags)?)
}

/// Leaves libcontainer an empty `/sys/fs/cgroup`, in which it does nothing: cgroups are ours.
fn hide_cgroups(cgroups: Cgroups) -> io::Result<Cgroups> {
    let hidden = cgroups.hide()?;
    // It looks for v1 in a tmpfs.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("none"), "/sys/fs/cgroup", Some("tmpfs"), flags, None::<&str>)?;
    Ok(hidden)
}
