//! Virtual machines on this one, for what its own kernel cannot show: pure cgroup v2, and an older kernel.
//!
//! A [`Guest`] boots the kernel that `deploy/vm/build` has fetched, in qemu's software emulation (no `/dev/kvm`), from a
//! disk made of the files that it is given; it runs one shell script as its first program and powers off.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What the script prints before the name of a check that held, and of one that did not.
const HELD: &str = "### ok ";
const BROKEN: &str = "### failed ";
/// What it prints last.
const END: &str = "### end";
/// Room on the disk beside the files.
const DISK_MIB: u64 = 1024;
const MEMORY_MIB: &str = "2048";
const PROCESSORS: &str = "2";

/// A virtual machine that is about to boot.
pub struct Guest {
    folder: TempDir,
}

/// What a guest has said on its console.
#[derive(Debug)]
pub struct Console {
    lines: Vec<String>,
}

impl Guest {
    /// With busybox, the kernel's modules, and `script` as the first program.
    ///
    /// # Panics
    ///
    /// If `deploy/vm/build` has not run, as for all that is missing here.
    pub fn new(script: &str) -> Guest {
        let vm = vm_folder();
        assert!(vm.join("initramfs").exists(), "run deploy/vm/build first");
        let folder = tempfile::Builder::new()
            .prefix("flotilla-vm")
            .tempdir()
            .expect("a folder can be made");
        let guest = Guest { folder };
        for name in [
            "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "mnt",
        ] {
            fs::create_dir_all(guest.root().join(name)).expect("a folder can be made");
        }
        for name in ["sbin", "usr/bin", "usr/sbin"] {
            let path = guest.root().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder can be made");
            symlink("/bin", path).expect("a link can be made");
        }
        guest.add(&vm.join("busybox"), "/bin/busybox");
        copy_tree(&vm.join("modules"), &guest.root());
        guest.write("/init", script);
        guest.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        guest
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Puts a program of this machine at an absolute `path` of the guest's.
    pub fn add(&self, from: &Path, path: &str) {
        let to = self.place(path);
        fs::copy(from, &to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }

    /// The same with the shared libraries that it needs.
    pub fn add_with_libraries(&self, from: &Path, path: &str) {
        self.add(from, path);
        let output = Command::new("ldd").arg(from).output().expect("ldd can be run");
        let text = String::from_utf8(output.stdout).expect("paths of libraries are UTF-8");
        let libraries = text
            .split_whitespace()
            .filter(|word| word.starts_with('/') && word.contains(".so"));
        for library in libraries {
            self.add(Path::new(library), library);
        }
    }

    /// Writes an executable file.
    pub fn write(&self, path: &str, text: &str) {
        let to = self.place(path);
        fs::write(&to, text).expect("a file can be written");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    }

    fn place(&self, path: &str) -> PathBuf {
        let to = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("it is below the root")).expect("a folder can be made");
        to
    }

    /// Boots it, with `parameters` for its kernel, and waits until its script has ended.
    ///
    /// # Panics
    ///
    /// If that takes longer than `limit`; with what the guest has said.
    pub fn run(self, parameters: &str, limit: Duration) -> Console {
        let disk = self.disk();
        let mut qemu = Qemu(boot(&disk, parameters));
        let output = qemu.0.stdout.take().expect("it has a console");
        let (tx, rx) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Some(Ok(line)) = lines.next() {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
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

    /// Writes the files onto a disk.
    fn disk(&self) -> PathBuf {
        let disk = self.folder.path().join("disk");
        let file = fs::File::create(&disk).expect("a file can be made");
        file.set_len((DISK_MIB + size_mib(&self.root())) << 20)
            .expect("a sparse file can be made");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]);
        succeed(mkfs.arg(self.root()).arg(&disk));
        disk
    }
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

/// A running qemu, which ends with this value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn boot(disk: &Path, parameters: &str) -> Child {
    let vm = vm_folder();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35,accel=tcg", "-cpu", "max"])
        .args(["-m", MEMORY_MIB, "-smp", PROCESSORS, "-serial", "stdio"])
        .arg("-kernel")
        .arg(vm.join("vmlinuz"))
        .arg("-initrd")
        .arg(vm.join("initramfs"))
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 {parameters}")])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=virtio,cache=unsafe",
            disk.display()
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu.spawn().expect("qemu-system-x86_64 can be run")
}

fn vm_folder() -> PathBuf {
    tree().join("target/vm")
}

/// The root of the source tree.
pub fn tree() -> PathBuf {
    let mut ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    ancestors
        .nth(2)
        .expect("this crate is two folders deep")
        .to_owned()
}

fn copy_tree(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    succeed(copy.arg("-r").arg(from.join(".")).arg(to));
}

fn size_mib(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("a folder can be read");
        let metadata = entry.metadata().expect("a file can be looked at");
        if metadata.is_dir() {
            size_mib(&entry.path())
        } else {
            metadata.len().div_ceil(1 << 20)
        }
    });
    sizes.sum()
}

fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
}
