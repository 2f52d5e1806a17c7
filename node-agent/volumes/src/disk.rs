//! Disks of persistent volumes: an ext4 file system in a sparse file, mounted through a loop device.
//!
//! The file has the size that was asked for, so the file system is full when that is used up. The kernel lets go of the
//! loop device with the last mount (autoclear), so nothing has to be kept about it: which device a file has is asked of
//! the kernel. Blocks that are freed inside are freed on the node (`discard`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::mounting::is_mounted;
use crate::persistent::{Disk, Share};

/// ext4 with a journal needs some room of its own.
const BYTES_MIN: u64 = 8 << 20;
/// How long the kernel may take to free the loop device of what was unmounted, and how often that is looked at.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
const RELEASE_LOOK: Duration = Duration::from_millis(10);

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A program is not installed.
    #[error("cannot run {program}: install {package} on this node")]
    Program {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
        /// Why it cannot be run.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed on {path}: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        output: String,
    },
    /// The file or folder cannot be worked with.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk was made before and is not there.
    #[error(
        "the disk {path} is gone from this node, and with it what was on it: delete the claim to start anew"
    )]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The handle cannot name a file.
    #[error("{name:?} cannot name a disk")]
    Name {
        /// The handle.
        name: String,
    },
    /// It grows once it is not mounted.
    #[error("the disk {path} grows when it is mounted next: resizing it now needs CAP_SYS_RESOURCE")]
    Mounted {
        /// The file.
        path: PathBuf,
    },
    /// It is mounted.
    #[error("the disk {path} is in use")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The kernel cannot mount it.
    #[error("this node's kernel does not know the file system {kind}")]
    Kernel {
        /// The file system.
        kind: &'static str,
    },
}

/// The disks of a node.
#[derive(Debug, Clone)]
pub(crate) struct Disks {
    folder: PathBuf,
}

impl Disks {
    pub(crate) fn new(folder: PathBuf) -> Disks {
        Disks { folder }
    }

    fn file(&self, name: &str) -> Result<PathBuf, DiskError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match !name.is_empty() && !name.starts_with('.') && name.len() <= 200 && name.bytes().all(is_plain) {
            true => Ok(self.folder.join(format!("{name}.ext4"))),
            false => Err(DiskError::Name {
                name: name.to_owned(),
            }),
        }
    }

    /// How much the disk's file system holds; nothing when it is not here.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        let mut block = [0; SUPERBLOCK_BYTES];
        let file = File::open(self.file(name).ok()?).ok()?;
        file.read_exact_at(&mut block, SUPERBLOCK_OFFSET).ok()?;
        file_system_bytes(&block)
    }

    /// Mounts the disk on `target`, having made it if it is new. Says whether it was made now.
    pub(crate) fn mount(&self, disk: &Disk, target: &Path) -> Result<bool, DiskError> {
        let file = self.file(&disk.name)?;
        let is_new = match (file.exists(), disk.is_made) {
            (true, _) => false,
            (false, true) => return Err(DiskError::Lost { path: file }),
            (false, false) => {
                self.make(&file, disk.bytes)?;
                true
            }
        };
        fs::create_dir_all(target).map_err(failed("make the folder", target))?;
        if is_mounted(target).map_err(failed("look at", target))? {
            return Ok(is_new);
        }
        if self.bytes(&disk.name).is_some_and(|bytes| bytes < disk.bytes) {
            let_go(&file).map_err(failed("find the loop device of", &file))?;
            match self.grow(&disk.name, disk.bytes) {
                // Another pod has it.
                Ok(()) | Err(DiskError::Mounted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut options = vec![
            "loop".to_owned(),
            "discard".to_owned(),
            "nosuid".to_owned(),
            "nodev".to_owned(),
        ];
        options.extend(disk.options.iter().cloned());
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "ext4", "-o", &options.join(",")])
            .arg(&file)
            .arg(target);
        run(mount, "mount", "mount", &file)?;
        Ok(is_new)
    }

    /// A file system with nothing in it. It gets its name when it is whole.
    fn make(&self, file: &Path, bytes: u64) -> Result<(), DiskError> {
        fs::create_dir_all(&self.folder).map_err(failed("make the folder", &self.folder))?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))
            .map_err(failed("protect", &self.folder))?;
        let draft = file.with_extension("new");
        let new = File::create(&draft).map_err(failed("make", &draft))?;
        new.set_len(bytes.max(BYTES_MIN))
            .map_err(failed("size", &draft))?;
        let mut mkfs = Command::new("mkfs.ext4");
        // Without a reserve for root.
        mkfs.args(["-q", "-F", "-m", "0", "-E"])
            .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard")
            .arg(&draft);
        run(mkfs, "mkfs.ext4", "e2fsprogs", &draft)?;
        // Everybody may use it as they may an empty folder, and as one it is empty: databases insist on that.
        for change in ["set_inode_field <2> mode 040777", "rmdir lost+found"] {
            let mut debugfs = Command::new("debugfs");
            debugfs.args(["-w", "-R", change]).arg(&draft);
            run(debugfs, "debugfs", "e2fsprogs", &draft)?;
        }
        new.sync_all().map_err(failed("sync", &draft))?;
        fs::rename(&draft, file).map_err(failed("name", file))
    }

    /// Lets the disk hold more, if it may be resized while it is mounted also then.
    pub(crate) fn grow(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        let path = self.file(name)?;
        let device = loop_device(&path).map_err(failed("find the loop device of", &path))?;
        if device.is_some() && !may_resize_mounted() {
            return Err(DiskError::Mounted { path });
        }
        let file = File::options()
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        if file.metadata().map_err(failed("look at", &path))?.len() < bytes {
            file.set_len(bytes).map_err(failed("size", &path))?;
        }
        match device {
            Some(device) => {
                let mut refresh = Command::new("losetup");
                refresh.arg("--set-capacity").arg(&device);
                run(refresh, "losetup", "mount", &path)?;
                resize(&device, &path)
            }
            None => {
                check(&path)?;
                resize(&path, &path)
            }
        }
    }

    /// Removes the disk and all that is on it. One that is not here is gone already.
    pub(crate) fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.file(name)?;
        if loop_device(&path)
            .map_err(failed("find the loop device of", &path))?
            .is_some()
        {
            return Err(DiskError::InUse { path });
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(source)),
            _ => Ok(()),
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + use<'a> {
    move |source| DiskError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Checks a file system that is not mounted, which its resizing asks for, and puts right what a power cut has left.
fn check(path: &Path) -> Result<(), DiskError> {
    let mut check = Command::new("e2fsck");
    let output = check.args(["-f", "-p"]).arg(path).output();
    let output = output.map_err(|source| DiskError::Program {
        program: "e2fsck",
        package: "e2fsprogs",
        source,
    })?;
    match output.status.code() {
        // 1: something was put right.
        Some(0 | 1) => Ok(()),
        _ => Err(DiskError::Failed {
            program: "e2fsck",
            path: path.to_owned(),
            output: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        }),
    }
}

/// Whether this process may resize file systems that are mounted: root usually may, in some containers it may not.
fn may_resize_mounted() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|effective| effective & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Where ext4 describes itself, and how much of that is read.
const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC: u16 = 0xEF53;

/// The size of an ext4 file system, from its superblock.
fn file_system_bytes(block: &[u8; SUPERBLOCK_BYTES]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = block[at..at + 4].try_into().unwrap_or_default();
        u64::from(u32::from_le_bytes(bytes))
    };
    let magic = u16::from_le_bytes([block[0x38], block[0x39]]);
    let (low, high, shift) = (word(0x4), word(0x150), word(0x18));
    let blocks = low | (high << 32);
    let is_plausible = magic == MAGIC && shift <= 6;
    is_plausible.then(|| blocks.checked_shl(10 + u32::try_from(shift).unwrap_or(0)))?
}

fn resize(what: &Path, file: &Path) -> Result<(), DiskError> {
    let mut resize = Command::new("resize2fs");
    resize.arg(what);
    run(resize, "resize2fs", "e2fsprogs", file)
}

fn run(
    mut command: Command,
    program: &'static str,
    package: &'static str,
    path: &Path,
) -> Result<(), DiskError> {
    let output = command.output().map_err(|source| DiskError::Program {
        program,
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(DiskError::Failed {
        program,
        path: path.to_owned(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The loop device that shows the file. Devices are the whole machine's, so the file is told by what the device has
/// open, not by its path: another mount namespace may show another file there.
fn loop_device(file: &Path) -> io::Result<Option<PathBuf>> {
    let wanted = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        let backing = Path::new("/sys/block").join(&name).join("loop/backing_file");
        // A device that shows nothing has no such file.
        let Ok(shown) = fs::read_to_string(backing) else {
            continue;
        };
        let shown = Path::new(shown.trim_end());
        let is_same =
            fs::metadata(shown).is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        if is_same {
            return Ok(Some(Path::new("/dev").join(name)));
        }
    }
    Ok(None)
}

/// Waits until a disk that nobody here has mounted any more is free: the mount namespace of a pod that has just ended may
/// hold it for a moment, in which it could not grow.
fn let_go(file: &Path) -> io::Result<()> {
    let end = Instant::now() + RELEASE_LIMIT;
    while let Some(device) = loop_device(file)? {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        if is_shown(&device, &mounts) || Instant::now() >= end {
            break;
        }
        std::thread::sleep(RELEASE_LOOK);
    }
    Ok(())
}

/// Whether a device is mounted somewhere, by the text of `mountinfo`: its source is the second word behind the dash.
fn is_shown(device: &Path, mountinfo: &str) -> bool {
    let sources = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - ")?.1.split(' ').nth(1));
    sources.into_iter().any(|source| Path::new(source) == device)
}

/// Mounts a share of another machine.
pub(crate) fn mount_share(share: &Share, target: &Path) -> Result<(), DiskError> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some("nfs4"))
    {
        return Err(DiskError::Kernel { kind: "nfs" });
    }
    fs::create_dir_all(target).map_err(failed("make the folder", target))?;
    if is_mounted(target).map_err(failed("look at", target))? {
        return Ok(());
    }
    let mut options = share.options.clone();
    options.extend(share.read_only.then(|| "ro".to_owned()));
    let mut mount = Command::new("mount");
    mount.args(["-t", "nfs"]);
    if !options.is_empty() {
        mount.arg("-o").arg(options.join(","));
    }
    mount.arg(format!("{}:{}", share.server, share.path)).arg(target);
    run(mount, "mount", "nfs-common", target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounting::unmount;

    fn disk(bytes: u64, is_made: bool) -> Disk {
        Disk {
            name: "pvc-1".to_owned(),
            bytes,
            is_made,
            options: Vec::new(),
        }
    }

    #[test]
    fn a_disk_is_made_holds_its_size_grows_and_goes_without_leaving_a_loop_device() {
        let folder = tempfile::tempdir().unwrap();
        let disks = Disks::new(folder.path().join("disks"));
        let targets = [folder.path().join("one"), folder.path().join("two")];
        assert_eq!(disks.bytes("pvc-1"), None);
        assert!(disks.mount(&disk(16 << 20, false), &targets[0]).unwrap());
        assert_eq!(disks.bytes("pvc-1"), Some(16 << 20));
        // A second pod shares the device, and doing it again changes nothing.
        assert!(!disks.mount(&disk(16 << 20, true), &targets[1]).unwrap());
        assert!(!disks.mount(&disk(16 << 20, true), &targets[1]).unwrap());
        assert_eq!(fs::read_dir(&targets[0]).unwrap().count(), 0);
        let full = fs::write(targets[0].join("big"), vec![1; 17 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        fs::write(targets[0].join("big"), "small").unwrap();
        assert_eq!(fs::read_to_string(targets[1].join("big")).unwrap(), "small");
        assert!(matches!(disks.remove("pvc-1"), Err(DiskError::InUse { .. })));
        match (disks.grow("pvc-1", 32 << 20), may_resize_mounted()) {
            (Ok(()), true) | (Err(DiskError::Mounted { .. }), false) => {}
            (grown, _) => panic!("{grown:?}"),
        }
        for target in &targets {
            unmount(target).unwrap();
        }
        assert_eq!(loop_device(&disks.file("pvc-1").unwrap()).unwrap(), None);
        // At the latest it grows when it is mounted next.
        disks.mount(&disk(32 << 20, true), &targets[0]).unwrap();
        assert_eq!(disks.bytes("pvc-1"), Some(32 << 20));
        fs::write(targets[0].join("more"), vec![1; 20 << 20]).unwrap();
        assert_eq!(fs::read_to_string(targets[0].join("big")).unwrap(), "small");
        unmount(&targets[0]).unwrap();
        disks.remove("pvc-1").unwrap();
        disks.remove("pvc-1").unwrap();
        let lost = disks.mount(&disk(16 << 20, true), &targets[0]).unwrap_err();
        assert!(matches!(lost, DiskError::Lost { .. }));
    }

    #[test]
    fn a_mounted_device_is_found_among_the_mounts() {
        let mounts = "30 1 0:26 / / rw - ext4 /dev/vda rw\n90 30 7:3 / /x rw shared:1 - ext4 /dev/loop3 rw\n";
        assert!(is_shown(Path::new("/dev/loop3"), mounts));
        assert!(!is_shown(Path::new("/dev/loop30"), mounts));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let disks = Disks::new(PathBuf::from("/nowhere"));
        for name in ["", "../x", "a/b", ".hidden"] {
            assert!(
                matches!(disks.remove(name), Err(DiskError::Name { .. })),
                "{name:?}"
            );
        }
    }
}
