//! Replicates the store over the servers of a cluster: openraft for consensus, sled for its log.
//!
//! A [`Replica`] is one member. Any member takes writes (it forwards them to the leader) and linearizable
//! reads (it asks the leader how far it has to be), and lets callers follow changes from its own copy.
//!
//! *Guarantees*: a committed transaction survives a power cut of every machine at once; all replicas show the
//! same objects at the same revision. Never acknowledges what is not on the disks of a majority, and never
//! starts with a log that has a hole.
//!
//! Only `consensus`, `runtime` and the modules under `storage` and `network` know openraft's traits; another
//! release of it changes those.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "an expectation is made for one check"
    )
)]

mod aging;
mod consensus;
mod founding;
mod leadership;
mod members;
mod network;
mod options;
pub mod platform;
mod proposer;
mod reader;
mod replica;
mod retention;
pub mod runtime;
mod service;
mod shared;
mod space;
mod status;
mod storage;
mod watch;

pub use founding::{Contents, FoundError, Founding, found, other_answers, read_folder};
pub use leadership::Leadership;
pub use members::{BootstrapError, JoinError, Member, MemberRole, MemberState, RemoveMemberError};
pub use network::{Call, CallError, GrpcPeerService, PeerConnector, Transport};
pub use options::{Limits, Options, Timing};
pub use platform::Platform;
pub use proposer::ProposeError;
pub use reader::ReadError;
pub use replica::{Expulsion, Replica};
pub use service::{AnswerError, PeerService};
pub use space::SpaceUse;
pub use status::StoreStatus;
pub use storage::OpenError;
pub use watch::{Batch, Watch, WatchError};
