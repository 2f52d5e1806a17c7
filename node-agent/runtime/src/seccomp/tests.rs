//! Which system calls the filters allow, and which profiles are refused.

use super::*;

/// What the kernel would answer to a call: the strictest of all programs' answers.
fn answer(filters: &Filters, call: syscalls::Sysno, arguments: [u64; 6]) -> u32 {
    let answers = filters
        .programs
        .iter()
        .map(|program| run(program, (call.id(), X86_64), arguments));
    // Errno before allow; the programs here know no other.
    answers
        .min_by_key(|answer| answer & 0xffff_0000)
        .unwrap_or(libc::SECCOMP_RET_ALLOW)
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// The kernel's machine, as far as filters use it.
fn run(program: &[libc::sock_filter], (call, architecture): (i32, u32), arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(call.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    arguments
        .iter()
        .for_each(|argument| data.extend(argument.to_le_bytes()));
    let load = |offset: u32| {
        let at = offset as usize;
        u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
    };
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let one = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        match one.code {
            0x20 => accumulator = load(one.k),
            0x54 => accumulator &= one.k,
            0x05 => at += one.k as usize,
            0x15 => at += jump(accumulator == one.k),
            0x25 => at += jump(accumulator > one.k),
            0x35 => at += jump(accumulator >= one.k),
            0x06 => return one.k,
            other => panic!("unexpected instruction {other:#x}"),
        }
    }
}

fn default(capabilities: u64) -> Filters {
    compile("RuntimeDefault", &default::profile(capabilities)).unwrap()
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn the_default_profile_forbids_what_leads_out() {
    use syscalls::Sysno;
    let filters = default(0);
    let answer = |call, first| answer(&filters, call, [first, 0, 0, 0, 0, 0]);
    for call in [
        Sysno::read,
        Sysno::openat,
        Sysno::execve,
        Sysno::futex,
        Sysno::getrandom,
        Sysno::statx,
    ] {
        assert_eq!(answer(call, 0), ALLOW, "{call}");
    }
    for call in [
        Sysno::mount,
        Sysno::unshare,
        Sysno::setns,
        Sysno::keyctl,
        Sysno::bpf,
        Sysno::reboot,
        Sysno::kexec_load,
        Sysno::io_uring_setup,
        Sysno::userfaultfd,
        Sysno::open_by_handle_at,
        Sysno::init_module,
        Sysno::chroot,
    ] {
        assert_eq!(answer(call, 0), NOT_PERMITTED, "{call}");
    }
    assert_eq!(answer(Sysno::clone, libc::CLONE_THREAD as u64), ALLOW);
    assert_eq!(answer(Sysno::clone, libc::CLONE_NEWUSER as u64), NOT_PERMITTED);
    assert_eq!(answer(Sysno::clone3, 0), NOT_THERE);
    assert_eq!(answer(Sysno::socket, libc::AF_INET6 as u64), ALLOW);
    assert_eq!(answer(Sysno::socket, libc::AF_NETLINK as u64), ALLOW);
    assert_eq!(answer(Sysno::socket, libc::AF_VSOCK as u64), NOT_PERMITTED);
    assert_eq!(answer(Sysno::socket, libc::AF_ALG as u64), NOT_PERMITTED);
    assert_eq!(answer(Sysno::personality, 0xffff_ffff), ALLOW);
    assert_eq!(
        answer(Sysno::personality, 0x0040_0000),
        NOT_PERMITTED,
        "no randomisation switched off"
    );
}

#[test]
fn capabilities_open_the_calls_that_they_guard() {
    use syscalls::Sysno;
    let admin = default(1 << 21);
    assert_eq!(answer(&admin, Sysno::mount, [0; 6]), ALLOW);
    assert_eq!(answer(&admin, Sysno::clone3, [0; 6]), ALLOW);
    assert_eq!(answer(&admin, Sysno::reboot, [0; 6]), NOT_PERMITTED);
    assert_eq!(answer(&default(1 << 22), Sysno::reboot, [0; 6]), ALLOW);
}

#[test]
fn filters_survive_their_file() {
    let filters = default(0);
    assert_eq!(Filters::decode(&filters.encode()), Some(filters.clone()));
    let bytes = filters.encode();
    assert_eq!(Filters::decode(&bytes[..bytes.len() - 8]), None);
    assert_eq!(Filters::decode(&bytes[..bytes.len() - 3]), None);
}

#[test]
fn own_profiles_are_found_below_their_folder_only() {
    use syscalls::Sysno;
    let dir = tempfile::tempdir().unwrap();
    let folders = Folders {
        profiles: dir.path().to_owned(),
        compiled: dir.path().to_owned(),
    };
    fs::create_dir(dir.path().join("team")).unwrap();
    fs::write(
        dir.path().join("team/no-mkdir.json"),
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "unheard_of"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
    )
    .unwrap();
    let localhost = |name: &str| filters(&Seccomp::Localhost(name.to_owned()), 0, &folders);
    let found = localhost("team/no-mkdir.json").unwrap().unwrap();
    assert_eq!(answer(&found, Sysno::mkdir, [0; 6]), NOT_THERE);
    assert_eq!(answer(&found, Sysno::mount, [0; 6]), ALLOW);
    assert!(matches!(localhost("../x"), Err(SeccompError::Outside { .. })));
    assert!(matches!(
        localhost("/etc/passwd"),
        Err(SeccompError::Outside { .. })
    ));
    let missing = localhost("missing.json").unwrap_err().to_string();
    assert!(
        missing.contains("missing.json") && missing.contains("No such file"),
        "{missing}"
    );
}

#[test]
fn the_default_programs_are_short_and_end_what_has_another_architecture() {
    let filters = default(0);
    let instructions: usize = filters.programs.iter().map(Vec::len).sum();
    assert!(instructions < 600, "{instructions}");
    for program in &filters.programs {
        for call in [
            syscalls::Sysno::read,
            syscalls::Sysno::mount,
            syscalls::Sysno::socket,
        ] {
            assert_eq!(
                run(program, (call.id(), I386), [0; 6]),
                libc::SECCOMP_RET_KILL_PROCESS
            );
        }
    }
}

#[test]
fn every_call_is_answered_as_the_profile_has_it() {
    use syscalls::Sysno;
    let profile = default::profile(0);
    let filters = default(0);
    let rules = |call: Sysno| {
        profile
            .rules
            .iter()
            .filter(move |rule| rule.names.iter().any(|name| name == call.name()))
    };
    for call in Sysno::iter() {
        if rules(call).any(|rule| !rule.conditions.is_empty()) {
            continue;
        }
        let expected = match rules(call).next().map(|rule| rule.action) {
            Some(profile::Action::Allow) => ALLOW,
            Some(_) => NOT_THERE,
            None => NOT_PERMITTED,
        };
        assert_eq!(answer(&filters, call, [7; 6]), expected, "{call}");
    }
}
