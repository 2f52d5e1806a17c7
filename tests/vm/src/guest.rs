//! A virtual machine that runs one shell script as its first program, and powers off.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    Image,
    qemu::{self, Qemu},
};

/// What the script prints before the name of a check that held, and of one that did not.
const HELD: &str = "### ok ";
const BROKEN: &str = "### failed ";
/// What it prints last.
const END: &str = "### end";
const MEMORY_MIB: &str = "2048";
const PROCESSORS: &str = "2";

/// What a guest has said on its console.
#[derive(Debug)]
pub struct Console {
    lines: Vec<String>,
}

/// Boots an image, with `parameters` for its kernel, and waits until its script has ended.
///
/// # Panics
///
/// If that takes longer than `limit`; with what the guest has said.
pub fn run(image: &Image, parameters: &str, limit: Duration) -> Console {
    let disk = image.disk();
    let mut command = qemu::command(&disk, parameters);
    command.args(["-m", MEMORY_MIB, "-smp", PROCESSORS]);
    let (qemu, output) = Qemu::start(&mut command);
    let (tx, rx) = mpsc::channel();
    let reader = std::thread::spawn(move || qemu::read_lines(output, |line| tx.send(line).is_ok()));
    let end = Instant::now() + limit;
    let mut console = Console { lines: Vec::new() };
    loop {
        match rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with(END) => break,
            Ok(line) => console.lines.push(line),
            Err(_) => panic!("the machine did not come to its end:\n{}", console.text()),
        }
    }
    drop(qemu);
    drop(rx);
    reader.join().expect("the reader does not panic");
    console
}

impl Console {
    /// All of it.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The names of the checks that held.
    pub fn held(&self) -> Vec<&str> {
        self.after(HELD)
    }

    /// The names of the checks that did not.
    pub fn broken(&self) -> Vec<&str> {
        self.after(BROKEN)
    }

    fn after(&self, start: &str) -> Vec<&str> {
        let rests = self.lines.iter().filter_map(|line| line.strip_prefix(start));
        rests.collect()
    }
}
