//! One static program for the tests: the shim, and the programs that run in containers.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::{SigSet, Signal};

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    if verb == "shim" {
        flotilla_runtime::shim_main(args);
    }
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let number = |index: usize| {
        args.get(index)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0_usize)
    };
    let mut out = io::stdout();
    match verb.to_str() {
        Some("exit") => std::process::exit(i32::try_from(number(0)).unwrap_or(0)),
        Some("say") => {
            writeln!(out, "{}", args[0])?;
            writeln!(io::stderr(), "{}", args[1])?;
        }
        Some("flood") => {
            for line in 0..number(0) {
                writeln!(out, "{line:08} {}", "x".repeat(number(1)))?;
            }
        }
        Some("pause") => wait_for(Signal::SIGUSR2)?,
        Some("until-term") => {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGTERM);
            mask.thread_block()?;
            writeln!(out, "ready")?;
            mask.wait()?;
            std::process::exit(7);
        }
        Some("identity") => identity(&mut out)?,
        Some("status") => {
            out.write_all(&std::fs::read("/proc/self/status")?)?;
            out.write_all(&std::fs::read("/proc/self/mountinfo")?)?;
        }
        Some("write") => match std::fs::write(&args[0], "x") {
            Ok(()) => writeln!(out, "written")?,
            Err(error) => writeln!(out, "{error}")?,
        },
        Some("listen") => {
            let listener = TcpListener::bind(("127.0.0.1", number(0) as u16))?;
            writeln!(out, "ready")?;
            for stream in listener.incoming() {
                stream?.write_all(nix::unistd::gethostname()?.as_encoded_bytes())?;
            }
        }
        Some("connect") => {
            let mut text = String::new();
            TcpStream::connect(("127.0.0.1", number(0) as u16))?.read_to_string(&mut text)?;
            writeln!(out, "{text} {}", nix::unistd::gethostname()?.to_string_lossy())?;
        }
        Some("eat") => {
            let mut hoard = Vec::new();
            for _ in 0..number(0) {
                hoard.push(vec![1_u8; 1 << 20]);
            }
            std::hint::black_box(&hoard);
        }
        _ => writeln!(out, "unknown verb {verb:?}")?,
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
