//! The files that a virtual machine boots from.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::vm_folder;

/// Room on the disk beside the files.
const ROOM_MIB: u64 = 1024;

/// A root file system in the making.
pub struct Image {
    folder: TempDir,
}

impl Image {
    /// With busybox, the kernel's modules, and `script` as the first program.
    ///
    /// # Panics
    ///
    /// If `deploy/vm/build` has not run, as for all that is missing here.
    pub fn new(script: &str) -> Self {
        let vm = vm_folder();
        assert!(vm.join("initramfs").exists(), "run deploy/vm/build first");
        let folder = tempfile::Builder::new()
            .prefix("flotilla-vm")
            .tempdir()
            .expect("a folder can be made");
        let image = Self { folder };
        for name in [
            "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "mnt",
        ] {
            fs::create_dir_all(image.root().join(name)).expect("a folder can be made");
        }
        for name in ["sbin", "usr/bin", "usr/sbin"] {
            let path = image.root().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder can be made");
            symlink("/bin", path).expect("a link can be made");
        }
        image.add(&vm.join("busybox"), "/bin/busybox");
        copy_tree(&vm.join("modules"), &image.root());
        image.write("/init", script);
        image.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        image
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

    /// Writes the files onto a disk, which is there as long as this value.
    pub fn disk(&self) -> PathBuf {
        let disk = self.folder.path().join("disk");
        let file = fs::File::create(&disk).expect("a file can be made");
        file.set_len((ROOM_MIB + size_mib(&self.root())) << 20)
            .expect("a sparse file can be made");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"]);
        succeed(mkfs.arg(self.root()).arg(&disk));
        disk
    }
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

pub(crate) fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
}
