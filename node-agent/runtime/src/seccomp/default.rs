//! The profile `RuntimeDefault`: what containers need, and nothing that has ever led out of one.
//!
//! The set of system calls is that of Docker's and containerd's default profile, so that what runs there runs here.

use super::profile::{Action, Condition, Operator, Profile, Rule};
use crate::capabilities::number_of;

/// Allowed with any arguments, by subject.
const ALWAYS: &[&str] = &[
    // Files and folders.
    "access cachestat chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync \
     ftruncate futimesat getcwd getdents getdents64 lchown link linkat lseek lstat mkdir mkdirat mknod mknodat \
     name_to_handle_at newfstatat open openat openat2 readahead readlink readlinkat rename renameat renameat2 rmdir \
     stat statfs statx symlink symlinkat sync sync_file_range syncfs truncate umask unlink unlinkat utime utimensat \
     utimes listmount statmount",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
     lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Reading, writing, waiting.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
     io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set pipe pipe2 poll ppoll pread64 preadv \
     preadv2 pselect6 pwrite64 pwritev pwritev2 read readv select sendfile signalfd signalfd4 splice tee vmsplice \
     write writev",
    // Sockets.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg \
     sendto setsockopt shutdown socketpair",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect \
     mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes and threads.
    "arch_prctl execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid \
     gettid modify_ldt pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease process_vm_readv \
     process_vm_writev ptrace restart_syscall riscv_hwprobe rseq sched_get_priority_max sched_get_priority_min \
     sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity \
     sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address \
     setpgid setpriority setrlimit setsid uretprobe vfork wait4 waitid",
    // Signals.
    "alarm kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_tgsigqueueinfo sigaltstack tgkill tkill",
    // Users, rights, confinement.
    "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self seccomp setfsgid setfsuid setgid setgroups setregid setresgid \
     setresuid setreuid setuid",
    // System V and POSIX message queues, semaphores, shared memory.
    "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget \
     semop semtimedop shmat shmctl shmdt shmget",
    // Time.
    "adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time \
     timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime \
     timerfd_settime times",
    // The rest.
    "getrandom sysinfo uname",
];

/// Allowed to those that hold a capability, which guards these calls anyway.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    (
        "SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday clock_settime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// Address families that may be used: no vsock (40), which talks to the hypervisor, no ALG (38), no other rarity.
const SOCKET_FAMILIES: [(u64, u64); 9] = [
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 41),
    (42, 45),
];

/// Personalities that change nothing of weight: Linux, 32-bit Linux, their variants of `uname`, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

/// Flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The profile for a container with these capabilities (a bit mask).
pub(super) fn profile(capabilities: u64) -> Profile {
    let mut rules: Vec<Rule> = ALWAYS.iter().map(|names| allow(names)).collect();
    for (capability, names) in WITH_CAPABILITY {
        if number_of(capability).is_some_and(|number| capabilities >> number & 1 == 1) {
            rules.push(allow(names));
        }
    }
    for (first, last) in SOCKET_FAMILIES {
        let within = [(Operator::GreaterOrEqual, first), (Operator::LessOrEqual, last)];
        rules.push(Rule {
            conditions: within.map(|(operator, value)| condition(operator, value)).into(),
            ..allow("socket")
        });
    }
    for value in PERSONALITIES {
        rules.push(allow_if("personality", Operator::Equal, value));
    }
    if number_of("SYS_ADMIN").is_some_and(|number| capabilities >> number & 1 == 0) {
        rules.push(allow_if("clone", Operator::MaskedEqual(NAMESPACE_FLAGS), 0));
        // Its flags lie in memory, out of a filter's sight; the C library then falls back to `clone`.
        rules.push(Rule {
            action: Action::Errno(libc::ENOSYS.unsigned_abs()),
            ..allow("clone3")
        });
    }
    Profile {
        default: Action::Errno(libc::EPERM.unsigned_abs()),
        rules,
    }
}

fn allow(names: &str) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: Action::Allow,
        conditions: Vec::new(),
    }
}

fn allow_if(name: &str, operator: Operator, value: u64) -> Rule {
    Rule {
        conditions: vec![condition(operator, value)],
        ..allow(name)
    }
}

/// On the first argument, as all are.
fn condition(operator: Operator, value: u64) -> Condition {
    Condition {
        argument: 0,
        operator,
        value,
    }
}
