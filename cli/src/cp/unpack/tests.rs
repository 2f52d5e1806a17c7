//! Archives as an honest and as a hostile container would send them.

use super::*;

enum Item<'a> {
    File(&'a str, &'a str),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Fifo(&'a str),
}

/// An archive with names as they are: the tar crate itself would refuse to write the hostile ones.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for item in items {
        let (name, link, text, kind) = match *item {
            Item::File(name, text) => (name, "", text, EntryType::Regular),
            Item::Folder(name) => (name, "", "", EntryType::Directory),
            Item::Symlink(name, to) => (name, to, "", EntryType::Symlink),
            Item::Hardlink(name, to) => (name, to, "", EntryType::Link),
            Item::Fifo(name) => (name, "", "", EntryType::Fifo),
        };
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o4755);
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A folder with `out`, which is the target, and a file beside it that must stay as it is.
fn bench() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("victim"), "safe").unwrap();
    folder
}

#[track_caller]
fn refused(items: &[Item<'_>], why: &str) {
    let bench = bench();
    let error = unpack(&archive(items)[..], "dir", &bench.path().join("out")).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains(why), "{message}");
    assert_eq!(fs::read_to_string(bench.path().join("victim")).unwrap(), "safe");
    let names = fs::read_dir(bench.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name == "victim" || name == "out"));
}

#[test]
fn an_honest_archive_is_unpacked() {
    let bench = bench();
    let out = bench.path().join("out");
    let items = [
        Item::Folder("dir/"),
        Item::File("dir/a", "one"),
        Item::File("dir/deep/er/b", "two"),
        Item::Symlink("dir/deep/link", "../a"),
        Item::Hardlink("dir/second", "dir/a"),
        Item::Fifo("dir/pipe"),
    ];
    let warnings = unpack(&archive(&items)[..], "dir", &out).unwrap();
    assert_eq!(fs::read_to_string(out.join("deep/er/b")).unwrap(), "two");
    assert_eq!(fs::read_to_string(out.join("deep/link")).unwrap(), "one");
    assert_eq!(fs::read_to_string(out.join("second")).unwrap(), "one");
    let mode = fs::metadata(out.join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7000, 0, "no bit that gives rights away is taken over");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("pipe is left out"), "{}", warnings[0]);
}

#[test]
fn a_single_file_goes_to_a_path_or_into_a_folder() {
    let bench = bench();
    let bytes = archive(&[Item::File("dir", "text")]);
    unpack(&bytes[..], "dir", &bench.path().join("new")).unwrap();
    assert_eq!(fs::read_to_string(bench.path().join("new")).unwrap(), "text");
    unpack(&bytes[..], "dir", bench.path()).unwrap();
    assert_eq!(fs::read_to_string(bench.path().join("dir")).unwrap(), "text");
}

#[test]
fn a_way_up_is_refused() {
    refused(
        &[Item::File("dir/../../victim", "evil")],
        "leads outside the target",
    );
    refused(&[Item::File("../victim", "evil")], "leads outside the target");
    refused(&[Item::Folder("dir/../../new")], "leads outside the target");
}

#[test]
fn an_absolute_path_is_refused() {
    refused(&[Item::File("/dir/a", "evil")], "leads outside the target");
}

#[test]
fn what_was_not_asked_for_is_refused() {
    refused(&[Item::File("other/a", "evil")], "is not what was asked for");
}

#[test]
fn links_that_lead_outside_are_refused() {
    for to in ["/etc", "../victim", "a/../../victim", ".."] {
        refused(
            &[Item::Folder("dir/"), Item::Symlink("dir/link", to)],
            "leads outside the target",
        );
    }
    refused(
        &[Item::Symlink("dir/a/link", "../../victim")],
        "leads outside the target",
    );
}

#[test]
fn nothing_is_written_through_a_link() {
    // The link is allowed by itself, but it is made last: the file goes into a folder of its own.
    let bench = bench();
    let out = bench.path().join("out");
    let items = [
        Item::Folder("dir/"),
        Item::Folder("dir/real"),
        Item::Symlink("dir/link", "real"),
        Item::File("dir/link/a", "text"),
    ];
    let error = unpack(&archive(&items)[..], "dir", &out).unwrap_err();
    assert!(!out.join("real/a").exists(), "{error:#}");
}

#[test]
fn a_link_that_is_there_already_is_not_followed() {
    let bench = bench();
    let out = bench.path().join("out");
    fs::create_dir(&out).unwrap();
    symlink("..", out.join("link")).unwrap();
    symlink("../victim", out.join("file")).unwrap();
    let through = archive(&[Item::Folder("dir/"), Item::File("dir/link/victim", "evil")]);
    let error = unpack(&through[..], "dir", &out).unwrap_err();
    assert!(format!("{error:#}").contains("link is no folder"), "{error:#}");
    let over = archive(&[Item::Folder("dir/"), Item::File("dir/file", "new")]);
    unpack(&over[..], "dir", &out).unwrap();
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(bench.path().join("victim")).unwrap(), "safe");
}

#[test]
fn hard_links_to_other_files_are_refused() {
    for to in ["/etc/passwd", "dir/../../victim", "victim"] {
        refused(
            &[Item::Folder("dir/"), Item::Hardlink("dir/a", to)],
            "refusing the archive",
        );
    }
}

#[test]
fn an_archive_that_is_cut_is_an_error() {
    let bench = bench();
    let bytes = archive(&[Item::File("dir", &"x".repeat(2000))]);
    assert!(unpack(&bytes[..1024], "dir", &bench.path().join("new")).is_err());
    assert!(unpack(&[][..], "dir", &bench.path().join("new")).is_err());
}
