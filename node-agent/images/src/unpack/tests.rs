//! Honest and hostile layers: what is written, what is refused, and that nothing is written elsewhere.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::makedev;
use tar::{Builder, Header};

use super::*;

/// A layer under construction, written with names that the tar crate itself would refuse to write.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, link: &str, content: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory {
            0o751
        } else {
            0o4755
        });
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1000);
        header.set_cksum();
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path, "", content)
    }

    fn folder(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", "")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, "")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path, target, "")
    }

    fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_path(path).unwrap();
        header.set_size(0);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn unpack(self) -> Unpacked {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("layer");
        fs::create_dir(&root).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        let result = unpack(&self.0.into_inner().unwrap()[..], &root, 100);
        let outside: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(
            outside.len(),
            2,
            "something was written beside the layer: {outside:?}"
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("outside")).unwrap(),
            "untouched"
        );
        Unpacked {
            root,
            result,
            _folder: folder,
        }
    }
}

struct Unpacked {
    root: PathBuf,
    result: Result<u64, UnpackError>,
    _folder: tempfile::TempDir,
}

impl Unpacked {
    fn root(&self) -> &Path {
        assert!(self.result.is_ok(), "{:?}", self.result);
        &self.root
    }

    fn refused(&self) -> String {
        format!("{:?}", self.result.as_ref().unwrap_err())
            .split([' ', '('])
            .next()
            .unwrap()
            .to_owned()
    }
}

fn opaque(folder: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(folder, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|length| length == 1 && value == *b"y")
}

fn whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

#[test]
fn files_keep_content_owner_mode_and_time() {
    let layer = Tar::new()
        .folder("./bin/")
        .file("bin/tool", "hello")
        .symlink("bin/sh", "tool")
        .unpack();
    let file = layer.root().join("bin/tool");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello");
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mtime()), (1, 2, 1000));
    assert_eq!(
        metadata.permissions().mode() & 0o7777,
        0o4755,
        "set-uid survives the change of owner"
    );
    assert_eq!(
        fs::read_link(layer.root().join("bin/sh")).unwrap(),
        Path::new("tool")
    );
    let folder = fs::metadata(layer.root().join("bin")).unwrap();
    assert_eq!(
        (folder.permissions().mode() & 0o7777, folder.mtime()),
        (0o751, 1000)
    );
    assert_eq!(layer.result.unwrap(), 5);
}

#[test]
fn missing_parents_are_made_and_absolute_names_are_inside() {
    let layer = Tar::new().file("/a/b/c", "x").unpack();
    assert_eq!(fs::read_to_string(layer.root().join("a/b/c")).unwrap(), "x");
}

#[test]
fn names_with_two_dots_are_refused() {
    assert_eq!(Tar::new().file("../outside", "x").unpack().refused(), "Outside");
    assert_eq!(
        Tar::new().file("a/../../outside", "x").unpack().refused(),
        "Outside"
    );
    assert_eq!(
        Tar::new()
            .pax(&[("path", b"../outside")])
            .file("a", "x")
            .unpack()
            .refused(),
        "Outside"
    );
    assert_eq!(Tar::new().file("", "x").unpack().refused(), "Outside");
}

#[test]
fn symbolic_links_do_not_lead_outside() {
    let up = Tar::new().symlink("up", "../").file("up/outside", "x").unpack();
    assert_eq!(
        fs::read_to_string(up.root().join("outside")).unwrap(),
        "x",
        "`..` of the root is the root"
    );
    let absolute = Tar::new()
        .folder("tmp")
        .symlink("link", "/tmp")
        .file("link/file", "x")
        .unpack();
    assert_eq!(fs::read_to_string(absolute.root().join("tmp/file")).unwrap(), "x");
    assert_eq!(
        Tar::new()
            .symlink("link", "/nowhere")
            .file("link/file", "x")
            .unpack()
            .refused(),
        "Write"
    );
    let over = Tar::new()
        .symlink("file", "../outside")
        .file("file", "x")
        .unpack();
    assert!(
        fs::symlink_metadata(over.root().join("file")).unwrap().is_file(),
        "the link itself is replaced"
    );
    let folder = Tar::new().symlink("file", "..").folder("file").unpack();
    assert!(fs::symlink_metadata(folder.root().join("file")).unwrap().is_dir());
}

#[test]
fn hard_links_stay_inside() {
    let layer = Tar::new().file("a", "x").hard_link("b/c", "./a").unpack();
    let inode = |name: &str| fs::metadata(layer.root().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b/c"));
    assert_eq!(
        Tar::new().hard_link("b", "../outside").unpack().refused(),
        "Outside"
    );
    assert_eq!(Tar::new().hard_link("b", "/outside").unpack().refused(), "Write");
    assert_eq!(
        Tar::new()
            .symlink("up", "..")
            .hard_link("b", "up/outside")
            .unpack()
            .refused(),
        "Write"
    );
    let link = Tar::new()
        .symlink("link", "../outside")
        .hard_link("b", "link")
        .unpack();
    assert!(
        fs::symlink_metadata(link.root().join("b")).unwrap().is_symlink(),
        "the link, not its target"
    );
}

#[test]
fn system_folders_are_never_links() {
    for name in ["dev", "proc", "sys", "./dev", "/proc"] {
        assert_eq!(
            Tar::new().symlink(name, "etc").unpack().refused(),
            "SystemLink",
            "{name}"
        );
    }
    assert_eq!(
        Tar::new()
            .symlink("root", "/")
            .symlink("root/dev", "etc")
            .unpack()
            .refused(),
        "SystemLink"
    );
    Tar::new().folder("etc").symlink("etc/dev", "x").unpack().root();
}

#[test]
fn only_harmless_device_nodes_are_made() {
    let layer = Tar::new()
        .device("dev/null", 1, 3)
        .add(EntryType::Fifo, "pipe", "", "")
        .unpack();
    assert_eq!(
        fs::metadata(layer.root().join("dev/null")).unwrap().rdev(),
        makedev(1, 3)
    );
    assert!(
        fs::metadata(layer.root().join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(Tar::new().device("dev/mem", 1, 1).unpack().refused(), "Device");
    assert_eq!(Tar::new().device("hidden", 0, 0).unpack().refused(), "Device");
    assert_eq!(
        Tar::new()
            .add(EntryType::Block, "disk", "", "")
            .unpack()
            .refused(),
        "Device"
    );
}

#[test]
fn whiteouts_are_in_the_words_of_overlayfs() {
    let layer = Tar::new()
        .file("etc/.wh.gone", "")
        .folder("opt")
        .file("opt/.wh..wh..opq", "")
        .file("opt/new", "x")
        .file(".wh..wh.plnk", "")
        .unpack();
    assert!(whiteout(&layer.root().join("etc/gone")));
    assert!(opaque(&layer.root().join("opt")) && layer.root().join("opt/new").exists());
    assert_eq!(
        fs::read_dir(layer.root()).unwrap().count(),
        2,
        "aufs bookkeeping is left out"
    );
}

#[test]
fn what_is_removed_and_made_again_hides_what_is_below() {
    let first = Tar::new()
        .file(".wh.a", "")
        .folder("a")
        .file("a/new", "x")
        .unpack();
    assert!(opaque(&first.root().join("a")));
    let last = Tar::new()
        .folder("a")
        .file("a/new", "x")
        .file(".wh.a", "")
        .unpack();
    assert!(opaque(&last.root().join("a")) && last.root().join("a/new").exists());
    let file = Tar::new().file(".wh.a", "").file("a", "x").unpack();
    assert!(file.root().join("a").is_file());
    for name in [".wh.", ".wh..", ".wh..."] {
        assert_eq!(Tar::new().file(name, "").unpack().refused(), "Outside", "{name}");
    }
}

#[test]
fn extended_attributes_of_overlayfs_are_left_out() {
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
    ];
    let layer = Tar::new().pax(&records).file("a", "").unpack();
    let mut names = [0; 200];
    let length = rustix::fs::listxattr(layer.root().join("a"), &mut names).unwrap();
    assert_eq!(&names[..length], b"user.note\0");
}

#[test]
fn long_names_are_understood_and_longer_ones_refused() {
    let name = format!("{0}/{0}/{0}", "n".repeat(100));
    let layer = Tar::new()
        .pax(&[("path", name.as_bytes()), ("uid", b"70000"), ("mtime", b"7.5")])
        .file("short", "x")
        .unpack();
    let metadata = fs::metadata(layer.root().join(&name)).unwrap();
    assert_eq!((metadata.uid(), metadata.mtime()), (70000, 7));
    let endless = "n/".repeat(600_000);
    assert_eq!(
        Tar::new()
            .pax(&[("path", endless.as_bytes())])
            .file("short", "")
            .unpack()
            .refused(),
        "Read"
    );
    assert_eq!(
        Tar::new()
            .pax(&[("size", b"9")])
            .file("short", "x")
            .unpack()
            .refused(),
        "Read"
    );
    assert_eq!(
        Tar::new()
            .pax(&[("GNU.sparse.major", b"1")])
            .file("short", "x")
            .unpack()
            .refused(),
        "Kind"
    );
}

#[test]
fn entries_are_counted() {
    let full = (0..101).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), ""));
    assert_eq!(full.unpack().refused(), "TooManyEntries");
}

#[test]
fn a_file_does_not_replace_a_folder_that_has_files() {
    assert_eq!(
        Tar::new().file("a/b", "x").file("a", "y").unpack().refused(),
        "Write"
    );
    Tar::new().folder("a").file("a", "y").unpack().root();
    assert_eq!(
        Tar::new().file("a", "x").file("a/b", "y").unpack().refused(),
        "Write"
    );
}
