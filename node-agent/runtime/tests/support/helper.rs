//! One static program for the tests: the shim, and the programs that run in containers.

#![allow(clippy::print_stdout, reason = "programs in containers print")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::{SigSet, Signal};

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    if verb == "shim" {
        flotilla_runtime::shim_main(args);
    }
    let args = Args(args.map(|arg| arg.to_string_lossy().into_owned()).collect());
    let verb = verb.to_string_lossy();
    let known =
        streams(&verb, &args)? || processes(&verb, &args)? || views(&verb, &args)? || attempts(&verb, &args)?;
    if !known {
        println!("unknown verb {verb:?}");
    }
    Ok(())
}

struct Args(Vec<String>);

impl Args {
    fn text(&self, index: usize) -> &str {
        self.0.get(index).map(String::as_str).unwrap_or_default()
    }

    fn number(&self, index: usize) -> usize {
        self.text(index).parse().unwrap_or(0)
    }
}

/// Programs that read and write.
fn streams(verb: &str, args: &Args) -> io::Result<bool> {
    let mut out = io::stdout();
    match verb {
        "say" => {
            writeln!(out, "{}", args.text(0))?;
            writeln!(io::stderr(), "{}", args.text(1))?;
        }
        "flood" => flood(args)?,
        "flood-after-input" => {
            io::stdin().read_line(&mut String::new())?;
            flood(args)?;
        }
        "echo" => {
            io::copy(&mut io::stdin(), &mut out)?;
            writeln!(out, "end")?;
        }
        "terminal" => terminal()?,
        "write" => match std::fs::write(args.text(0), "x") {
            Ok(()) => writeln!(out, "written")?,
            Err(error) => writeln!(out, "{error}")?,
        },
        "listen" => {
            let listener = TcpListener::bind(("127.0.0.1", args.number(0) as u16))?;
            writeln!(out, "ready")?;
            for stream in listener.incoming() {
                stream?.write_all(nix::unistd::gethostname()?.as_encoded_bytes())?;
            }
        }
        "connect" => {
            let mut text = String::new();
            TcpStream::connect(("127.0.0.1", args.number(0) as u16))?.read_to_string(&mut text)?;
            writeln!(out, "{text} {}", nix::unistd::gethostname()?.to_string_lossy())?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn flood(args: &Args) -> io::Result<()> {
    for line in 0..args.number(0) {
        writeln!(io::stdout(), "{line:08} {}", "x".repeat(args.number(1)))?;
    }
    Ok(())
}

fn terminal() -> io::Result<()> {
    use std::io::IsTerminal;
    let mut out = io::stdout();
    writeln!(
        out,
        "terminal {} {}",
        io::stdin().is_terminal(),
        out.is_terminal()
    )?;
    let mut line = String::new();
    while io::stdin().read_line(&mut line)? > 0 && line.trim() != "quit" {
        let size = rustix::termios::tcgetwinsize(io::stdin())?;
        writeln!(out, "got {} {}x{}", line.trim(), size.ws_col, size.ws_row)?;
        line.clear();
    }
    std::process::exit(9);
}

/// Programs that live and end in some way.
fn processes(verb: &str, args: &Args) -> io::Result<bool> {
    match verb {
        "exit" => std::process::exit(i32::try_from(args.number(0)).unwrap_or(0)),
        "pause" => wait_for(Signal::SIGUSR2)?,
        "until-term" => {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGTERM);
            mask.thread_block()?;
            println!("ready");
            mask.wait()?;
            std::process::exit(7);
        }
        "leave-behind" => {
            // The child outlives its parent, and with it its container's first process.
            std::process::Command::new("/bin/helper").arg("pause").spawn()?;
        }
        "wait-for" => {
            println!("ready");
            while !std::path::Path::new(args.text(0)).exists() {
                std::thread::yield_now();
            }
        }
        "mount" => {
            let none = None::<&str>;
            nix::mount::mount(
                Some("t"),
                args.text(0),
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                none,
            )?;
            std::fs::write(std::path::Path::new(args.text(0)).join("inside"), "x")?;
            println!("ready");
            wait_for(Signal::SIGUSR2)?;
        }
        "eat" => {
            let mut hoard = Vec::new();
            for _ in 0..args.number(0) {
                hoard.push(vec![1_u8; 1 << 20]);
            }
            std::hint::black_box(&hoard);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Programs that tell what they see.
fn views(verb: &str, args: &Args) -> io::Result<bool> {
    let mut out = io::stdout();
    match verb {
        "identity" => identity(&mut out)?,
        "status" => {
            out.write_all(&std::fs::read("/proc/self/status")?)?;
            out.write_all(&std::fs::read("/proc/self/mountinfo")?)?;
        }
        "read" => match std::fs::read(args.text(0)) {
            Ok(bytes) => out.write_all(&bytes)?,
            Err(error) => writeln!(out, "{error}")?,
        },
        "list" => match std::fs::read_dir(args.text(0)) {
            Ok(entries) => {
                for entry in entries {
                    writeln!(out, "{}", entry?.file_name().to_string_lossy())?;
                }
            }
            Err(error) => writeln!(out, "{error}")?,
        },
        "processes" => {
            for entry in std::fs::read_dir("/proc")?.flatten() {
                if let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) {
                    let arguments = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                    let pid = entry.file_name();
                    writeln!(
                        out,
                        "{} {} {}",
                        pid.to_string_lossy(),
                        name.trim(),
                        arguments.replace('\0', " ")
                    )?;
                }
            }
        }
        "calls" => calls(&mut out)?,
        "descriptors" => {
            for entry in std::fs::read_dir("/proc/self/fd")? {
                let entry = entry?;
                let target = std::fs::read_link(entry.path())?;
                writeln!(
                    out,
                    "{} {}",
                    entry.file_name().to_string_lossy(),
                    target.display()
                )?;
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Programs that try what only the node's root may do, or a container's.
fn attempts(verb: &str, args: &Args) -> io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let mut out = io::stdout();
    let mut tell = |what: &str, result: io::Result<()>| match result {
        Ok(()) => writeln!(out, "{what}: done"),
        Err(error) => writeln!(out, "{what}: {}", error.kind()),
    };
    match verb {
        "owners" => {
            for path in &args.0 {
                match std::fs::metadata(path) {
                    Ok(found) => println!("{path} {}:{}", found.uid(), found.gid()),
                    Err(error) => println!("{path} {}", error.kind()),
                }
            }
        }
        "swap" => {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            writeln!(out, "ready")?;
            loop {
                renameat_with(CWD, args.text(0), CWD, args.text(1), RenameFlags::EXCHANGE)?;
            }
        }
        "own" => {
            for path in &args.0 {
                tell(
                    path,
                    std::fs::write(path, "x").and_then(|()| chown(path, Some(33), Some(34))),
                )?;
            }
        }
        "escape" => {
            for path in &args.0 {
                tell(&format!("chown {path}"), chown(path, Some(0), Some(0)))?;
                tell(
                    &format!("chmod {path}"),
                    std::fs::set_permissions(path, PermissionsExt::from_mode(0o4777)),
                )?;
            }
            tell("mknod", node("/tmp/device"))?;
            tell("mount a disk", disk())?;
            for file in [
                "/proc/sys/kernel/core_pattern",
                "/proc/sys/kernel/panic",
                "/proc/sys/vm/swappiness",
                "/sys/kernel/mm/transparent_hugepage/enabled",
                "/dev/kmsg",
            ] {
                tell(&format!("write {file}"), std::fs::write(file, "1"))?;
            }
        }
        "users" => {
            let of = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/uid_map"));
            println!("{}", of("self")?.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn node(path: &str) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    Ok(mknod(path, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(254, 0))?)
}

fn disk() -> io::Result<()> {
    let flags = nix::mount::MsFlags::empty();
    Ok(nix::mount::mount(
        Some("/dev/vda"),
        "/tmp",
        Some("ext4"),
        flags,
        None::<&str>,
    )?)
}

/// What the kernel says to calls that lead out of containers.
fn calls(out: &mut io::Stdout) -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    let told = |result: nix::Result<()>| match result {
        Ok(()) => "done".to_owned(),
        Err(errno) => errno.to_string(),
    };
    writeln!(out, "unshare {}", told(unshare(CloneFlags::CLONE_NEWUSER)))?;
    writeln!(
        out,
        "mkdir {}",
        told(nix::unistd::mkdir("/tmp/made", nix::sys::stat::Mode::S_IRWXU))
    )?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    for line in status
        .lines()
        .filter(|line| line.starts_with("Seccomp:") || line.starts_with("CapEff:"))
    {
        writeln!(out, "{}", line.replace('\t', " "))?;
    }
    Ok(())
}

fn wait_for(signal: Signal) -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(signal);
    mask.thread_block()?;
    mask.wait()?;
    Ok(())
}

fn identity(out: &mut io::Stdout) -> io::Result<()> {
    let groups: Vec<u32> = nix::unistd::getgroups()?
        .into_iter()
        .map(|group| group.as_raw())
        .collect();
    writeln!(out, "cwd {}", std::env::current_dir()?.display())?;
    writeln!(
        out,
        "user {} {} {groups:?}",
        nix::unistd::getuid(),
        nix::unistd::getgid()
    )?;
    writeln!(out, "pid {}", std::process::id())?;
    for (name, value) in std::env::vars() {
        writeln!(out, "env {name}={value}")?;
    }
    Ok(())
}
