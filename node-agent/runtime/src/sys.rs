//! System calls that no library wraps safely. All `unsafe` of the workspace is here.
#![allow(unsafe_code, reason = "it is gathered here, so that the rest has none")]
#![deny(clippy::undocumented_unsafe_blocks)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::unistd::ForkResult;
use tokio::io::unix::AsyncFd;

use crate::exec::TerminalSize;

/// Forks the shim.
///
/// *Assumes* that this process has one thread, as [`thread_count`] can tell: then the child may allocate and
/// lock like any other process.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the process has a single thread (checked at the start of `shim_main`), so no lock can be held
    // by a thread that the child lacks.
    unsafe { nix::unistd::fork() }
}

/// Ends a forked child without running what its parent registered for its own end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a plain number and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Takes this program's code and constants out of this process's memory until they are used again. The file stays in
/// the kernel's cache, so that costs some hundred microseconds; meanwhile neither they nor their page tables count.
pub(crate) fn give_back_code() {
    let (first, end) = (&raw const __executable_start, &raw const etext);
    let length = (end.addr() - first.addr()) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: what lies between the program's first byte and the end of its code is mapped from its file without the
    // right to write, so the kernel reads the same content again. The file cannot be changed while it is executed. Without
    // effect nothing is lost.
    unsafe { libc::madvise(first.cast_mut().cast(), length, libc::MADV_DONTNEED) };
}

const PAGE_BYTES: usize = 4096;

// Set by the linker; only their addresses mean something.
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Threads of this process.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Gives every signal its default action and unblocks all: an executed program starts as from a shell.
pub(crate) fn reset_signals() {
    // `struct sigaction` of the kernel, all zeroes: SIG_DFL without flags. The C library's function refuses
    // the two signals that it uses itself, which a parent may have left ignored.
    let default = [0_u64; 4];
    let old = std::ptr::null_mut::<u64>();
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `default` lives until the call returns and is as long as the kernel's struct, the old
        // action is not asked for, and the last argument is the size of the kernel's signal set. Signals that
        // cannot be changed yield an error.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                old,
                size_of::<u64>(),
            )
        };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().ok();
}

/// Brings the loopback device of the current network namespace up.
pub(crate) fn bring_loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: all zeroes are a valid `ifreq`: a C struct of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A descriptor of `file` through a mount of its own that is read-only and belongs to no namespace.
///
/// Whoever executes it cannot be written to through `/proc/<pid>/exe`, whatever its rights (CVE-2019-5736).
pub(crate) fn open_sealed(file: &Path) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let mount = open_tree(
        rustix::fs::CWD,
        file,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the empty path is a C string, `attributes` lives until the call returns, and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(mount)
    }
}

/// Shows a detached mount's files with other owners: what is `x` on disk is what user `x` of the namespace is on the
/// node, and the other way round. With `recursively`, also those of the mounts below it.
pub(crate) fn map_owners(mount: impl AsFd, users: impl AsFd, recursively: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(users.as_fd().as_raw_fd().unsigned_abs()),
    };
    let flags = libc::AT_EMPTY_PATH | if recursively { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path is a C string, `attributes` lives until the call returns, and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The user namespace that another namespace belongs to.
pub(crate) fn owner_of(namespace: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 1)`
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS as _) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// A process that only holds namespaces; it ends with this value, or with the process that made it.
pub(crate) struct NamespaceHolder {
    pub(crate) pid: i32,
    /// Held open as long as the holder is to live.
    _leash: OwnedFd,
}

impl NamespaceHolder {
    /// Starts one in new namespaces (`CLONE_NEW…`), from a process of any number of threads.
    pub(crate) fn start(namespaces: libc::c_int) -> io::Result<NamespaceHolder> {
        let (end, leash) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let flags = namespaces | libc::SIGCHLD;
        // SAFETY: without CLONE_VM this is a fork, and no stack is needed. Other threads may hold locks, so the child
        // takes none: it makes system calls only, see `wait_for_end`.
        let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match i32::try_from(result) {
            Ok(0) => wait_for_end(end.as_raw_fd(), leash.as_raw_fd()),
            Ok(pid) if pid > 0 => Ok(NamespaceHolder { pid, _leash: leash }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        // Its pid is its own until it is waited for here.
        send_signal(self.pid, libc::SIGKILL).ok();
        let status = std::ptr::null_mut();
        // SAFETY: the status may be null, and the pid is that of a child of this process.
        while unsafe { libc::waitpid(self.pid, status, 0) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// The life of a [`NamespaceHolder`]: ends when nobody holds the other end of the pipe.
fn wait_for_end(end: std::os::fd::RawFd, leash: std::os::fd::RawFd) -> ! {
    let mut nothing = [0_u8; 1];
    // SAFETY: system calls alone, on numbers and a buffer that outlives them; the descriptors are the child's copies,
    // which nothing in it uses any more.
    unsafe {
        libc::close(leash);
        while libc::read(end, nothing.as_mut_ptr().cast(), 1) < 0 {}
        libc::_exit(0)
    }
}

/// `struct pidfd_info` of Linux 6.13, as far as every later kernel fills it.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the 64 bytes above.
const PIDFD_GET_INFO: u64 = (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 11;

/// The wait status of a process that somebody else has reaped, where the kernel tells it (Linux 6.15).
pub(crate) fn exit_status_of(pidfd: impl AsFd) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request number carries the struct's size, and the struct lives until the call returns.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Lets the process answer for its orphaned descendants, and names it in `ps`.
pub(crate) fn become_subreaper(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    let reaper = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    // SAFETY: PR_SET_NAME reads a C string, which `name` is.
    let named = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    if reaper < 0 || named < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends any signal, real-time ones included.
pub(crate) fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `kill` takes two plain numbers; the pid is that of one process, not of a group.
    let result = unsafe { libc::kill(pid, signal) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends any signal to the process that a pidfd stands for.
pub(crate) fn send_signal_to(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the signal information may be null, and the other arguments are numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            none,
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends SIGKILL to a process and its group, or on kernels before 6.9 to the process alone.
pub(crate) fn kill_group_of(pidfd: impl AsFd) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the signal information may be null, and the other arguments are numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            libc::SIGKILL,
            none,
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EINVAL) => send_signal_to(pidfd, libc::SIGKILL),
        error => Err(error),
    }
}

/// Forks the caller, which has one thread; the child is its parent's child, and lives in the pid namespace that
/// the caller has entered. Returns nothing in the child.
pub(crate) fn fork_sibling() -> io::Result<Option<i32>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork, and no stack is needed; the process is a fork of the shim, which
    // has a single thread, so no lock can be held by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes all descriptors above standard error but those in `kept`.
///
/// *Assumes* that what owns the others is neither used nor dropped any more: the process is a fork that ends with
/// `_exit` or `execve`.
pub(crate) fn close_all_but(kept: &[std::os::fd::RawFd]) -> io::Result<()> {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let mut first = 3;
    for last in kept.into_iter().map(Some).chain([None]) {
        let end = last.map_or(libc::c_uint::MAX, |last| last.unsigned_abs().saturating_sub(1));
        if first <= end {
            // SAFETY: the arguments are numbers; see above for the owners of the descriptors.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, end, 0) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = last.map_or(first, |last| last.unsigned_abs() + 1);
    }
    Ok(())
}

/// Loads a seccomp program into the calling thread; needs `no_new_privs` or `CAP_SYS_ADMIN`.
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel only reads the program and its instructions, which live until the call returns, and checks
    // every jump in them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Forks the caller, which has one thread; the child is the first process of a new pid namespace, and with
/// `CLONE_PARENT` in `flags` its parent's child. Returns nothing in the child.
pub(crate) fn fork_into_pid_namespace(flags: libc::c_int) -> io::Result<Option<i32>> {
    let flags = flags | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork, and no stack is needed; the shim has a single thread, so no lock can be
    // held by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `descriptor` the standard stream `number` (0 to 2) as well.
pub(crate) fn become_standard(descriptor: impl AsFd, number: i32) -> io::Result<()> {
    let descriptor = descriptor.as_fd();
    let copied = match number {
        0 => nix::unistd::dup2_stdin(descriptor),
        1 => nix::unistd::dup2_stdout(descriptor),
        _ => nix::unistd::dup2_stderr(descriptor),
    };
    Ok(copied?)
}

/// Gives a terminal another size; its foreground process group is told.
pub(crate) fn set_terminal_size(terminal: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Registers a non-blocking descriptor with the current tokio runtime.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps one descriptor open, under the same number, until after its registration.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// Waits until a descriptor can be read: for a pidfd, until its process has ended.
pub(crate) async fn wait_readable(descriptor: Arc<OwnedFd>) -> io::Result<()> {
    // SAFETY: the `Arc` keeps this one descriptor open, under the same number, until after its registration.
    let registered = unsafe { AsyncFd::register(descriptor) }?;
    registered.readable().await.map(drop)
}

/// Start time of a process in clock ticks since boot.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields behind it are plain.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Opens `/dev/null`.
pub(crate) fn null_device() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}
