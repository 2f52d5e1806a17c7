//! `--reset-to-this-member`: a cluster of which one server is left goes on with that server as its only member.
//!
//! What the others had and this one had not is gone. So it is done only when no other server answers, and the
//! cluster that goes on has a new identity, revisions far ahead, and nothing to do with the old members: they are
//! refused, and told to stop, if they come back with their old data.
//!
//! *Guarantees*: the old store is kept beside the new one; a reset that is cut short is finished by the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flotilla_raft::{FoundError, Founding, Platform};

use crate::Options;

/// The store, the one that is being made, and the one that was.
const STORE: &str = "store";
const NEW_STORE: &str = "store.reset";
const OLD_STORE: &str = "store.before-reset";
/// Says that the flag has done its work, until a start without it.
const DONE_FILE: &str = "reset-done";

/// Why a cluster is not reduced to this server.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// There is nothing to go on with.
    #[error("{folder} has no data of a server: --reset-to-this-member is for a server that was a member")]
    NoData {
        /// The data folder.
        folder: PathBuf,
    },
    /// It is not the only survivor.
    #[error(
        "{others} still answer: what only they have would be lost. If they are a majority, remove the servers that \
         are lost with `flotilla member remove` instead; if not, stop them first"
    )]
    OthersAnswer {
        /// Their names.
        others: String,
    },
    /// The data cannot be read, or the new store cannot be made.
    #[error("the data of this server cannot be used")]
    Store(#[from] FoundError),
    /// The folder cannot be changed.
    #[error("cannot change {folder}")]
    Folder {
        /// The data folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Refuses a reset of nothing, before anything is made.
pub(crate) fn check(options: &Options) -> Result<(), ResetError> {
    let member = options.data_dir.join("pki/member.json");
    match options.reset_to_this_member && !member.exists() {
        true => Err(ResetError::NoData {
            folder: options.data_dir.clone(),
        }),
        false => Ok(()),
    }
}

/// Resets the cluster if that is asked for and was not done already; finishes what an earlier start had begun.
pub(crate) async fn prepare(options: &Options, id: u64, platform: &Platform) -> Result<(), ResetError> {
    let folder = Folder(&options.data_dir);
    folder.finish().map_err(|source| folder.error(source))?;
    if !options.reset_to_this_member {
        return folder.forget_done().map_err(|source| folder.error(source));
    }
    if folder.is_done() {
        tracing::warn!(
            "the cluster was reset to this member before; start the server without --reset-to-this-member"
        );
        return Ok(());
    }
    let contents = flotilla_raft::read_folder(platform, &folder.path(STORE), id).await?;
    let mut others = Vec::new();
    for member in contents.members.iter().filter(|member| member.id != id) {
        if flotilla_raft::other_answers(platform, member).await {
            others.push(member.name.clone());
        }
    }
    if !others.is_empty() {
        return Err(ResetError::OthersAnswer {
            others: others.join(", "),
        });
    }
    folder.clear_new().map_err(|source| folder.error(source))?;
    let mut former = contents.former;
    former.push(contents.cluster);
    let founding = Founding {
        id,
        name: options.name.clone(),
        address: options.advertised(),
        cluster: new_cluster(),
        former,
        objects: contents.objects,
        term: contents.term,
    };
    let cluster = founding.cluster.clone();
    let lost = contents.members.iter().filter(|member| member.id != id);
    let lost: Vec<String> = lost.map(|member| member.name.clone()).collect();
    let revision = flotilla_raft::found(platform, &folder.path(NEW_STORE), founding).await?;
    folder.finish().map_err(|source| folder.error(source))?;
    tracing::warn!(
        cluster,
        revision = revision.0,
        without = lost.join(", "),
        old_data = %folder.path(OLD_STORE).display(),
        "the cluster was reset to this member: what the others had and this server had not is gone; they must not come \
         back with their old data, but may join with a token and empty folders"
    );
    Ok(())
}

/// The identity of a cluster that was never there.
pub(crate) fn new_cluster() -> String {
    format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>())
}

/// The data folder during a reset.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn error(&self, source: io::Error) -> ResetError {
        ResetError::Folder {
            folder: self.0.to_owned(),
            source,
        }
    }

    fn is_done(&self) -> bool {
        self.path(DONE_FILE).exists()
    }

    fn forget_done(&self) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path(DONE_FILE)))
    }

    /// Removes what an earlier attempt left half made.
    fn clear_new(&self) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(self.path(NEW_STORE)))
    }

    /// Puts a new store that is whole in the place of the old one, which is kept.
    fn finish(&self) -> io::Result<()> {
        // What `found` writes last.
        if !self.path(NEW_STORE).join("about.json").exists() {
            return Ok(());
        }
        if self.path(STORE).exists() {
            let mut old = self.path(OLD_STORE);
            for number in 2.. {
                if !old.exists() {
                    break;
                }
                old = self.path(&format!("{OLD_STORE}-{number}"));
            }
            fs::rename(self.path(STORE), old)?;
        }
        fs::rename(self.path(NEW_STORE), self.path(STORE))?;
        File::create(self.path(DONE_FILE))?.sync_all()?;
        File::open(self.0)?.sync_all()
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_reset_that_was_cut_short_is_finished_and_never_loses_the_old_store() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder(place.path());
        fs::create_dir(folder.path(STORE)).unwrap();
        fs::create_dir(folder.path(NEW_STORE)).unwrap();
        folder.finish().unwrap();
        assert_eq!(names(place.path()), [STORE, NEW_STORE], "it was not whole");

        fs::write(folder.path(NEW_STORE).join("about.json"), "{}").unwrap();
        // The power went between the two renames.
        fs::rename(folder.path(STORE), folder.path(OLD_STORE)).unwrap();
        folder.finish().unwrap();
        assert_eq!(names(place.path()), [DONE_FILE, STORE, OLD_STORE]);
        assert!(folder.path(STORE).join("about.json").exists());

        fs::create_dir(folder.path(NEW_STORE)).unwrap();
        fs::write(folder.path(NEW_STORE).join("about.json"), "{}").unwrap();
        folder.finish().unwrap();
        let second = format!("{OLD_STORE}-2");
        assert_eq!(names(place.path()), [DONE_FILE, STORE, OLD_STORE, &second]);
    }
}
