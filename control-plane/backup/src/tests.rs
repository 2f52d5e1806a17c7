//! What was written is read, and what was changed on the way is refused with its place.

use bytes::Bytes;
use expect_test::{Expect, expect};
use flotilla_store::{Draft, HistoryLimits, Key, Operation, Require, ResourceName, State, Transaction};

use sha2::{Digest as _, Sha256};

use super::*;

fn objects() -> Snapshot {
    let mut state = State::new(Snapshot::default(), 0, HistoryLimits::default());
    for (group, resource, name, length) in [
        ("", "pods", "a", 10),
        ("", "pods", "b", 100_000),
        ("apps", "deployments", "web", 20),
    ] {
        let draft = Draft {
            json: Bytes::from(format!(
                r#"{{"metadata":{{"name":"{name}"}},"x":"{}"}}"#,
                "x".repeat(length)
            )),
            revision_at: 13,
        };
        let key = Key::new(ResourceName::new(group, resource), "default", name);
        let require = Require::Absent;
        state.apply(&Transaction {
            operations: vec![Operation::Put { key, draft, require }],
            fence: None,
        });
    }
    state.snapshot().clone()
}

fn header(format: u32) -> Header {
    Header {
        format,
        flotilla: "0.1.0".to_owned(),
        cluster: "blue".to_owned(),
        server: "server-1".to_owned(),
        taken_at: "2026-11-25T10:00:00Z".to_owned(),
        revision: 3,
        term: 7,
    }
}

fn file(format: u32) -> Vec<u8> {
    let keys = Keys {
        ca_certificate: "certificate".to_owned(),
        ca_key: "key".to_owned(),
        service_account_key: "other key".to_owned(),
    };
    let mut file = Vec::new();
    write(&header(format), &keys, &objects(), &mut file).unwrap();
    file
}

fn check_refused(file: &[u8], expected: Expect) {
    expected.assert_eq(&read(file).unwrap_err().to_string());
}

#[test]
fn what_is_read_is_what_was_written() {
    let file = file(FORMAT);
    let found = read(&file[..]).unwrap();
    assert_eq!(found.header, header(FORMAT));
    assert_eq!(found.keys.ca_key, "key");
    assert!(found.objects.iter().eq(objects().iter()));
    assert_eq!(found.bytes, file.len() as u64);
    let digest = Sha256::digest(&file[..file.len() - 32]);
    assert!(
        found
            .sha256
            .starts_with(&format!("{:02x}{:02x}", digest[0], digest[1]))
    );
    let kinds: Vec<String> = found
        .summary
        .kinds
        .iter()
        .map(|kind| format!("{}/{} {}", kind.group, kind.resource, kind.objects))
        .collect();
    assert_eq!(kinds, ["/pods 2", "apps/deployments 1"]);
}

#[test]
fn keys_are_not_printed() {
    let found = read(&file(FORMAT)[..]).unwrap();
    assert!(!format!("{found:?}").contains("other key"));
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let whole = file(FORMAT);
    // Within the large object each byte is like the next.
    let places = (0..2000)
        .chain((2000..whole.len() - 2000).step_by(997))
        .chain(whole.len() - 2000..whole.len());
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        assert!(read(&damaged[..]).is_err(), "byte {place} was flipped");
        assert!(read(&whole[..place]).is_err(), "cut at {place}");
    }
}

#[test]
fn the_place_of_the_damage_is_told() {
    let whole = file(FORMAT);
    let mut flipped = whole.clone();
    flipped[70_000] ^= 1;
    check_refused(
        &flipped,
        expect![
            "the snapshot is damaged at byte 65771: the checksum of block 3 (34939 bytes) is wrong; use another copy of it"
        ],
    );
    check_refused(
        &whole[..70_000],
        expect![
            "the snapshot ends at byte 70000, before its end mark: it was not copied or saved to its end"
        ],
    );
    let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
    check_refused(
        &longer,
        expect!["the snapshot is damaged at byte 100922: something follows its end; use another copy of it"],
    );
    let mut digest = whole;
    *digest.last_mut().unwrap() ^= 1;
    check_refused(
        &digest,
        expect![
            "the snapshot is damaged at byte 100890: the SHA-256 of the whole is another one; use another copy of it"
        ],
    );
}

#[test]
fn other_files_and_newer_ones_are_told_apart() {
    check_refused(
        b"PK",
        expect![[r#"this is no snapshot of a Flotilla cluster: it does not begin with "FLTBAK""#]],
    );
    check_refused(
        b"PK\x03\x04 and more",
        expect![[r#"this is no snapshot of a Flotilla cluster: it does not begin with "FLTBAK""#]],
    );
    check_refused(
        &file(FORMAT + 1),
        expect![
            "the snapshot has format 2, and this release of flotilla reads up to 1: use the release that wrote it, or a later one"
        ],
    );
    let mut newer = file(FORMAT);
    newer[7] = b'2';
    check_refused(
        &newer,
        expect![
            "the snapshot has format 2, and this release of flotilla reads up to 1: use the release that wrote it, or a later one"
        ],
    );
}
