//! Archives as attackers make them, refused alike when they are imported and when they are pulled.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

mod support;

use flotilla_images::Limits;
use flotilla_report::report;
use support::{Layout, Node, Registry, Setup};
use tar::{EntryType, Header};

/// One entry, with names that the tar crate itself would refuse to write.
fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
    }
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn layer(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, path, link, content) in entries {
        entry(&mut tar, *kind, path, link, content);
    }
    tar.into_inner().unwrap()
}

/// Refused on both ways, in the same words, with nothing left behind.
async fn refused(layer: &[u8], limits: Limits, expected: &str) {
    let mut layout = Layout::new();
    layout.image("attack:1", &[(layer, "gzip")]);
    let registry = Registry::start(&Setup::default());
    registry.push(&layout, "attack:1");
    let (importing, pulling) = (Node::with(limits), Node::with(limits));
    let imported = report(&importing.store.import(layout.path()).unwrap_err());
    let pulled = pulling.refusal(&registry.image("attack:1")).await;
    for (node, message) in [(importing, imported), (pulling, pulled)] {
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        for folder in ["layers", "archives", "scratch", "downloads"] {
            node.store.collect_garbage().unwrap();
            assert_eq!(node.count(folder), 0, "{folder} after {message:?}");
        }
        assert!(node.store.list().unwrap().is_empty());
    }
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;

#[tokio::test]
async fn path_traversal() {
    let attack = layer(&[(FILE, "a/../../../etc/cron.d/evil", "", b"x")]);
    refused(
        &attack,
        Limits::default(),
        "does not name a place inside the layer",
    )
    .await;
}

#[tokio::test]
async fn symlinked_parents() {
    let attack = layer(&[(LINK, "up", "/nowhere/at/all", b""), (FILE, "up/evil", "", b"x")]);
    refused(&attack, Limits::default(), r#"cannot write entry "up/evil""#).await;
}

#[tokio::test]
async fn hard_links_out() {
    let attack = layer(&[(EntryType::Link, "shadow", "../../etc/shadow", b"")]);
    refused(
        &attack,
        Limits::default(),
        "does not name a place inside the layer",
    )
    .await;
    let attack = layer(&[(EntryType::Link, "shadow", "/etc/shadow", b"")]);
    refused(&attack, Limits::default(), r#"cannot write entry "shadow""#).await;
}

#[tokio::test]
async fn device_nodes() {
    let attack = layer(&[(EntryType::Block, "disk", "", b"")]);
    refused(
        &attack,
        Limits::default(),
        r#"entry "disk" is the device node 8:0"#,
    )
    .await;
}

#[tokio::test]
async fn whiteouts_of_the_root() {
    for name in [".wh.", ".wh..", ".wh..."] {
        let attack = layer(&[(FILE, name, "", b"")]);
        refused(
            &attack,
            Limits::default(),
            "does not name a place inside the layer",
        )
        .await;
    }
}

#[tokio::test]
async fn bombs_by_ratio() {
    let limits = Limits {
        ratio_max: 50,
        ratio_from_bytes: 1 << 20,
        ..Limits::default()
    };
    let attack = layer(&[(FILE, "zeros", "", &vec![0; 8 << 20])]);
    refused(&attack, limits, "unpacks to more than 50 times its size").await;
}

#[tokio::test]
async fn bombs_by_size() {
    let limits = Limits {
        layer_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let attack = layer(&[(FILE, "zeros", "", &vec![0; 8 << 20])]);
    refused(&attack, limits, "more than 1048576 bytes once unpacked").await;
}

#[tokio::test]
async fn a_million_entries() {
    // The limit itself, with as many entries: all are folders of one name, so that only counting costs.
    let mut tar = tar::Builder::new(Vec::new());
    let max = Limits::default().layer_entries_max;
    assert_eq!(max, 1_000_000);
    let limits = Limits {
        layer_entries_max: 10_000,
        ..Limits::default()
    };
    for _ in 0..=limits.layer_entries_max {
        entry(&mut tar, EntryType::Directory, "d", "", b"");
    }
    refused(&tar.into_inner().unwrap(), limits, "more than 10000 entries").await;
}

#[tokio::test]
async fn system_folders_as_symbolic_links() {
    for name in ["dev", "proc", "sys"] {
        let attack = layer(&[(LINK, name, "/tmp", b"")]);
        refused(
            &attack,
            Limits::default(),
            "makes a system folder a symbolic link",
        )
        .await;
    }
}
