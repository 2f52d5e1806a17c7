//! What the process that starts the stores tells the one that asks them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use flotilla_pki::Identity;
use serde::{Deserialize, Serialize};

use super::requests::Protocol;

/// Everything that is to be measured.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) systems: Vec<System>,
}

/// One store, asked in one way.
#[derive(Serialize, Deserialize)]
pub(super) struct System {
    /// What the tables call it.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    /// The leader first, where that is known.
    pub(super) servers: Vec<Server>,
    /// With it there is TLS, without it none.
    pub(super) identity: Option<Identity>,
}

/// One server of a store.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
}

impl Server {
    pub(super) fn at(address: IpAddr, port: u16, pid: u32) -> Server {
        let address = SocketAddr::new(address, port);
        Server { address, pid }
    }
}

impl Plan {
    pub(super) fn write(&self, file: &Path) {
        let json = serde_json::to_vec(self).expect("a plan can be written as JSON");
        std::fs::write(file, json).expect("the cluster's folder can be written");
    }

    pub(super) fn read(file: &Path) -> Plan {
        let json = std::fs::read(file).expect("the plan can be read");
        serde_json::from_slice(&json).expect("the plan is whole")
    }
}
