//! A cluster of three machines, each with one server.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Image, Machine,
    disk::{Cut, Loss},
    network::Switch,
};

/// How many machines there are.
pub const MACHINES: usize = 3;
const PORT: u16 = 6443;
/// How long a machine may take until its server has started; emulation is some ten times slower than the machine itself.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Three machines on a network of their own, whose servers can be reached from outside on loopback addresses.
pub struct Fleet {
    // In the order in which they may end: the machines use what follows.
    machines: Vec<Machine>,
    _switch: Switch,
    _image: Image,
    folder: TempDir,
    token: String,
    flags: String,
}

impl Fleet {
    /// Three machines with empty disks, off. `flags` are further ones of `flotilla server`.
    ///
    /// Has loopback addresses that are made of this process's id, so there can be one in a process.
    pub fn new(flotilla: &Path, flags: &str) -> Self {
        let image = Image::new(include_str!("fleet/member.sh"));
        image.add(flotilla, "/bin/flotilla");
        let root = image.disk();
        let folder = tempfile::Builder::new().prefix("flotilla-fleet").tempdir();
        let folder = folder.expect("a folder can be made");
        let switch = Switch::start(folder.path().join("switch"));
        let machines =
            (1..).map(|number| Machine::new(folder.path(), &root, &switch, number, outside(number)));
        Self {
            machines: machines.take(MACHINES).collect(),
            _switch: switch,
            _image: image,
            folder,
            token: String::new(),
            flags: flags.to_owned(),
        }
    }

    /// Three machines that run a cluster.
    ///
    /// # Panics
    ///
    /// If no cluster comes of it, with what the machines have said.
    pub fn boot(flotilla: &Path, flags: &str) -> Self {
        let mut fleet = Self::new(flotilla, flags);
        fleet.start(&[0]);
        fleet.await_founding();
        fleet.start(&[1, 2]);
        fleet.wait_until_ready(&[0, 1, 2]);
        fleet
    }

    /// Waits until the first machine, which has been switched on, has started a cluster; the others need that to join.
    ///
    /// # Panics
    ///
    /// If it has not in time.
    pub fn await_founding(&mut self) {
        let kubeconfig = self.machines[0].wait_for("### kubeconfig ", BOOT_LIMIT);
        fs::write(self.kubeconfig(), kubeconfig).expect("a file can be written");
        self.token = self.machines[0].wait_for("### token ", BOOT_LIMIT);
    }

    /// Where the servers are reached, by number of their machine.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let addresses = self.machines.iter().map(Machine::outside);
        addresses.map(|address| (address, PORT).into()).collect()
    }

    /// The administrator's kubeconfig. The address in it is one within the fleet.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Switches machines on.
    pub fn start(&mut self, numbers: &[usize]) {
        for number in numbers {
            let parameters = self.parameters(*number);
            self.machines[*number].boot(&parameters, Some(PORT));
        }
    }

    /// Waits until the servers of these machines say that they are ready.
    ///
    /// # Panics
    ///
    /// If one does not in time, or has ended; with what the machines have said.
    pub fn wait_until_ready(&self, numbers: &[usize]) {
        let end = Instant::now() + BOOT_LIMIT;
        for machine in numbers.iter().map(|number| &self.machines[*number]) {
            while !is_ready(machine.outside()) {
                let in_time = Instant::now() < end && !machine.has_ended();
                assert!(in_time, "a server is not ready:\n{}", self.said());
                std::thread::park_timeout(LOOK_INTERVAL);
            }
        }
    }

    fn parameters(&self, number: usize) -> String {
        let (name, address) = (number + 1, inside(number));
        let join = match number {
            0 => String::new(),
            _ => format!("--join={}:{PORT} --token={}", inside(0), self.token),
        };
        let first = match self.token.as_str() {
            "" => "flotilla_first=yes",
            _ => "",
        };
        format!(
            "flotilla_name=machine-{name} flotilla_address={address} {first} flotilla_flags=\"{join} {}\"",
            self.flags
        )
    }

    /// After so many more flushes the disk of a machine carries out none, until its power is cut.
    pub fn hold_flushes(&self, number: usize, after: u32) {
        self.machines[number].hold_flushes(after);
    }

    /// Waits until a flush is held.
    ///
    /// # Panics
    ///
    /// If none is before `limit` is over.
    pub fn await_held_flush(&self, number: usize, limit: Duration) {
        let held = self.machines[number].wait_for_flush(limit);
        assert!(held, "nothing was flushed:\n{}", self.said());
    }

    /// Takes the power of these machines in the same moment; `cut` says what each disk loses.
    pub fn cut_power(&mut self, numbers: &[usize], mut cut: impl FnMut(usize) -> Cut) -> Loss {
        for number in numbers {
            self.machines[*number].cut_power();
        }
        let losses = numbers
            .iter()
            .map(|number| self.machines[*number].settle(cut(*number)));
        losses.fold(Loss::default(), |sum, loss| Loss {
            kept: sum.kept + loss.kept,
            lost: sum.lost + loss.lost,
        })
    }

    /// What the machines have said last.
    pub fn said(&self) -> String {
        let said = self.machines.iter().map(Machine::said);
        said.collect::<Vec<_>>().join("\n=== next machine ===\n")
    }
}

fn is_ready(address: Ipv4Addr) -> bool {
    let url = format!("https://{address}:{PORT}/readyz");
    let mut curl = Command::new("curl");
    // Anybody may ask, and who answers does not matter here.
    curl.args(["--silent", "--fail", "--insecure", "--max-time", "5"])
        .arg(url);
    curl.output().expect("curl can be run").status.success()
}

fn inside(number: usize) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([10, 99, 0, 1]);
    Ipv4Addr::from_bits(FIRST + u32::try_from(number).expect("there are few machines"))
}

/// An address in the upper half of 127.0.0.0/8 that no other process's fleet has.
fn outside(number: u8) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([127, 128, 0, 0]);
    const BITS: u32 = 21;
    let process = std::process::id() & ((1 << BITS) - 1);
    Ipv4Addr::from_bits(FIRST + (process << 2) + u32::from(number))
}
