//! Makes a small data folder of the present format, to be kept as a fixture of it:
//! `cargo run -p flotilla-raft --example data_folder -- control-plane/raft/tests/fixtures/format-N`.
//!
//! It has a snapshot, log entries behind it, a vote, and what was known to be committed. `tests/cluster/formats.rs`
//! says what has to be read of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::{Limits, Options, Platform, Replica, Timing};
use flotilla_store::{Draft, Key, Operation, Require, ResourceName, Transaction};
use tonic::transport::Endpoint;

fn put(name: &str, value: &str) -> Transaction {
    let json = format!(r#"{{"metadata":{{"name":"{name}"}},"value":"{value}"}}"#);
    Transaction {
        operations: vec![Operation::Put {
            key: Key::new(ResourceName::new("", "pods"), "default", name),
            draft: Draft {
                json: Bytes::from(json),
                revision_at: 13,
            },
            require: Require::Anything,
        }],
        fence: None,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let connector = |_: &str| Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let replica = Replica::open(Options {
        id: 1,
        name: "server-1".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        data_dir: PathBuf::from(&folder),
        platform: Platform::real(Arc::new(connector)),
        timing: Timing::default(),
        limits: Limits {
            snapshot_entries: 10,
            kept_entries: 2,
            ..Limits::default()
        },
    })
    .await?;
    replica.bootstrap().await?;
    for number in 0..8 {
        replica.propose(put(&format!("pod-{number}"), "early")).await?;
    }
    let snapshots = PathBuf::from(&folder).join("snapshots");
    let has_snapshot = || std::fs::read_dir(&snapshots).is_ok_and(|files| files.count() > 0);
    while !has_snapshot() {
        replica.propose(put("pod-0", "early")).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 0..3 {
        replica.propose(put(&format!("late-{number}"), "late")).await?;
    }
    replica.read().await?;
    replica.shutdown().await;
    Ok(())
}
