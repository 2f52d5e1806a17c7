//! A virtual machine whose power can be cut.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    disk::{Cut, Disk, Loss, SECTOR_BYTES},
    network::Switch,
    qemu::{self, Qemu},
};

const MEMORY_MIB: &str = "512";
/// The size of the disk that outlives a power cut.
const DISK_MIB: u64 = 512;
/// How much of what a machine has said is told when something is wrong.
const LINES_TOLD: usize = 60;
/// What a guest says on its console when its script has nothing more to do.
const END: &str = "### end";

/// One of several on a network: its first interface is on the switch, its second can be reached from outside; its first
/// disk is forgotten with each boot, its second is a [`Disk`].
pub struct Machine {
    name: String,
    /// Also the end of its hardware addresses.
    number: u8,
    root: PathBuf,
    disk: Disk,
    wire: PathBuf,
    switch: PathBuf,
    outside: Ipv4Addr,
    console: Arc<Console>,
    running: Option<Running>,
}

struct Running {
    qemu: Qemu,
    reader: JoinHandle<()>,
}

impl Machine {
    /// A machine with an empty disk, off. `outside` is the loopback address on which its ports can be reached.
    pub fn new(folder: &Path, root: &Path, switch: &Switch, number: u8, outside: Ipv4Addr) -> Self {
        let name = format!("machine-{number}");
        Self {
            disk: Disk::format(&folder.join(&name), DISK_MIB),
            wire: folder.join(format!("{name}.wire")),
            switch: switch.path().to_owned(),
            root: root.to_owned(),
            console: Arc::default(),
            running: None,
            name,
            number,
            outside,
        }
    }

    /// The loopback address on which its port is reached.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Switches it on, with `parameters` for its kernel, which hands to its first program those that it does not know.
    /// A `port` of it may be reached from outside.
    pub fn boot(&mut self, parameters: &str, port: Option<u16>) {
        assert!(self.running.is_none(), "{} is on", self.name);
        let mut command = qemu::command(&self.root, parameters);
        command.args(["-m", MEMORY_MIB, "-smp", "1"]);
        let disk = self.disk.attach().display().to_string();
        command
            .arg("-blockdev")
            .arg(format!(
                "driver=nbd,node-name=data,server.type=unix,server.path={disk}"
            ))
            .arg("-device")
            .arg(format!(
                "virtio-blk-pci,drive=data,logical_block_size={SECTOR_BYTES},physical_block_size={SECTOR_BYTES}"
            ));
        let (wire, switch) = (self.wire.display(), self.switch.display());
        let peers =
            format!("dgram,id=peers,local.type=unix,local.path={wire},remote.type=unix,remote.path={switch}");
        // Restricted: the guest reaches nothing through it.
        let mut outside = "user,id=outside,restrict=on".to_owned();
        if let Some(port) = port {
            outside += &format!(",hostfwd=tcp:{}:{port}-:{port}", self.outside);
        }
        for (kind, netdev, id) in [(0, peers, "peers"), (1, outside, "outside")] {
            let mac = format!("52:54:00:00:{kind:02x}:{:02x}", self.number);
            let device = format!("virtio-net-pci,netdev={id},mac={mac},romfile=");
            command.args(["-netdev", &netdev, "-device", &device]);
        }
        let (qemu, output) = Qemu::start(&mut command);
        self.console.begin();
        let console = Arc::clone(&self.console);
        let reader = std::thread::spawn(move || {
            qemu::read_lines(output, |line| {
                console.say(line);
                true
            });
            console.end();
        });
        self.running = Some(Running { qemu, reader });
    }

    /// After so many more flushes its disk carries out none, until the power is cut.
    pub fn hold_flushes(&self, after: u32) {
        self.disk.hold_flushes(after);
    }

    /// Whether a flush has been held before `limit` is over, so that a cut loses something.
    pub fn wait_for_flush(&self, limit: Duration) -> bool {
        self.disk.wait_for_flush(limit)
    }

    /// Takes its power; [`Self::settle`] waits until it is off. Cutting several first and waiting then is as if they hung
    /// on one wire.
    pub fn cut_power(&mut self) {
        if let Some(running) = &mut self.running {
            running.qemu.kill();
        }
    }

    /// Waits until it is off, and lets its disk forget what it was not told to keep.
    pub fn settle(&mut self, cut: Cut) -> Loss {
        if let Some(Running { mut qemu, reader }) = self.running.take() {
            qemu.wait();
            reader.join().expect("the reader does not panic");
        }
        self.disk.cut_power(cut)
    }

    /// The rest of the first line since it was switched on that begins with `start`.
    ///
    /// # Panics
    ///
    /// If there is none before `limit` is over or its script has ended; with what it has said.
    pub fn wait_for(&self, start: &str, limit: Duration) -> String {
        let found = self.console.wait_for(start, limit);
        found.unwrap_or_else(|| panic!("{} did not say {start:?}:\n{}", self.name, self.said()))
    }

    /// Whether its script has ended, or its kernel.
    pub fn has_ended(&self) -> bool {
        self.console.has_ended()
    }

    /// What it has said last.
    pub fn said(&self) -> String {
        self.console.text()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
        self.settle(Cut::LosesAll);
    }
}

#[derive(Default)]
struct Console {
    spoken: Mutex<Spoken>,
    changed: Condvar,
}

#[derive(Default)]
struct Spoken {
    lines: Vec<String>,
    /// Where the lines of this boot begin.
    boot: usize,
    /// Nothing more comes in this boot.
    ended: bool,
}

impl Console {
    fn begin(&self) {
        let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.lines.push("--- boot ---".to_owned());
        spoken.boot = spoken.lines.len();
        spoken.ended = false;
    }

    fn say(&self, line: String) {
        let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.ended |= line.starts_with(END);
        spoken.lines.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.ended = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, start: &str, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let lines = &spoken.lines[spoken.boot..];
            if let Some(rest) = lines.iter().find_map(|line| line.strip_prefix(start)) {
                return Some(rest.to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || spoken.ended {
                return None;
            }
            spoken = match self.changed.wait_timeout(spoken, left) {
                Ok((spoken, _)) => spoken,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn has_ended(&self) -> bool {
        let spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.ended
    }

    fn text(&self) -> String {
        let spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &spoken.lines[spoken.lines.len().saturating_sub(LINES_TOLD)..];
        last.join("\n")
    }
}
