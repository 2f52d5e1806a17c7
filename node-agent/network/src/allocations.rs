//! Which pod has which address, one small file per pod.
//!
//! *Guarantees*: an address is on disk before anyone is told of it, and a file is either whole or ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::NetworkError;
use crate::cidr::Cidr;

#[derive(Debug)]
pub(crate) struct Allocations {
    folder: PathBuf,
    by_pod: BTreeMap<String, Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Allocations {
    /// Reads what earlier runs gave out.
    pub(crate) fn open(folder: &Path) -> Result<Self, NetworkError> {
        let read = || {
            fs::create_dir_all(folder)?;
            let mut by_pod = BTreeMap::new();
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let uid = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .filter(|name| is_uid(name));
                let address = fs::read_to_string(&path)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                match (uid, address) {
                    (Some(uid), Some(address)) => drop(by_pod.insert(uid.to_owned(), address)),
                    // Half-written before a crash: nobody was told of it.
                    _ => fs::remove_file(&path)?,
                }
            }
            Ok(by_pod)
        };
        let by_pod: BTreeMap<String, Ipv4Addr> = read().map_err(|source| NetworkError::State {
            path: folder.to_owned(),
            source,
        })?;
        let last = by_pod.values().max().copied();
        Ok(Self {
            folder: folder.to_owned(),
            by_pod,
            last,
        })
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, Ipv4Addr> {
        &self.by_pod
    }

    /// The pod's address; a new one when it has none in this range.
    pub(crate) fn assign(&mut self, uid: &str, cidr: Cidr) -> Result<Ipv4Addr, NetworkError> {
        if let Some(&address) = self.by_pod.get(uid)
            && cidr.serves(address)
        {
            return Ok(address);
        }
        let taken: BTreeSet<Ipv4Addr> = self.by_pod.values().copied().collect();
        let address = cidr.next_free(&taken, self.last).ok_or(NetworkError::Full {
            cidr: cidr.to_string(),
        })?;
        let path = self.path(uid)?;
        let fresh = self.folder.join(format!(".{uid}"));
        fs::write(&fresh, address.to_string())
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| NetworkError::State { path, source })?;
        self.by_pod.insert(uid.to_owned(), address);
        self.last = Some(address);
        Ok(address)
    }

    /// Gives the pod's address back.
    pub(crate) fn release(&mut self, uid: &str) -> Result<(), NetworkError> {
        let path = self.path(uid)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::State { path, source });
            }
            _ => {}
        }
        self.by_pod.remove(uid);
        Ok(())
    }

    fn path(&self, uid: &str) -> Result<PathBuf, NetworkError> {
        if is_uid(uid) {
            Ok(self.folder.join(uid))
        } else {
            Err(NetworkError::PodUid { uid: uid.to_owned() })
        }
    }
}

fn is_uid(uid: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=200).contains(&uid.len()) && !uid.starts_with('.') && uid.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_restart_and_are_not_reused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let cidr = "10.1.2.0/29".parse().unwrap();
        let mut allocations = Allocations::open(folder.path()).unwrap();
        let first = allocations.assign("a", cidr).unwrap();
        assert_eq!(allocations.assign("a", cidr).unwrap(), first);
        allocations.assign("b", cidr).unwrap();
        allocations.release("a").unwrap();
        allocations.release("a").unwrap();
        assert_ne!(allocations.assign("c", cidr).unwrap(), first);
        fs::write(folder.path().join(".torn"), "10.").unwrap();
        fs::write(folder.path().join("empty"), "").unwrap();
        let mut again = Allocations::open(folder.path()).unwrap();
        assert_eq!(again.all(), allocations.all());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let moved = again.assign("b", "10.9.0.0/24".parse().unwrap()).unwrap();
        assert_eq!(
            moved,
            Ipv4Addr::new(10, 9, 0, 2),
            "another range, another address"
        );
        assert!(matches!(
            again.assign("../x", cidr),
            Err(NetworkError::PodUid { .. })
        ));
    }

    #[test]
    fn a_full_range_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let cidr = "10.1.2.0/30".parse().unwrap();
        let mut allocations = Allocations::open(folder.path()).unwrap();
        allocations.assign("a", cidr).unwrap();
        assert!(matches!(
            allocations.assign("b", cidr),
            Err(NetworkError::Full { .. })
        ));
    }
}
