//! The volumes of all pods of a node.
//!
//! Files and mount points are in one file system in memory, a folder per pod; empty folders on disk are in the node's
//! data folder. Setting up is done again and again (after an agent's restart, when a config map changed): what is
//! right stays untouched.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_api::claims;
use flotilla_lifecycle::{Facts, References};
use flotilla_report::report;
use flotilla_runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use nix::mount::MsFlags;

use crate::content::{Files, TokenWanted, Tokens, token_places};
use crate::disk::{DiskError, Disks, mount_share};
use crate::mounting::{is_mounted, make_private, mount_new, unmount};
use crate::mounts::{self, MountError};
use crate::ownership::Ownership;
use crate::places::{self, VolumePlace};
use crate::plan::{Source, plan};
use crate::{atomic, empty_dir, exclusive, host_path, image, persistent};

/// Only root looks about in it; containers get mounts of what is theirs.
const ROOT_OPTIONS: &str = "mode=0711";

/// Where the volumes of a node are.
#[derive(Debug, Clone)]
pub struct Options {
    /// On disk: empty folders, and what outlives pods.
    pub state_dir: PathBuf,
    /// Where files and mount points are; a file system in memory is mounted there.
    pub run_dir: PathBuf,
}

/// What a pod's volumes are made from.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The pod and what it refers to.
    pub facts: &'a Facts<'a>,
    /// Its service account tokens.
    pub tokens: &'a Tokens,
    /// The unpacked layers (top first) of the images that volumes show, by the volume's name.
    pub images: &'a BTreeMap<String, Vec<PathBuf>>,
}

/// Why there can be no volumes.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare the folder {path} for volumes")]
pub struct OpenVolumesError {
    path: PathBuf,
    source: io::Error,
}

/// Why a volume is not ready. The message is kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {problem}")]
pub struct SetUpError {
    /// The volume's name.
    pub volume: String,
    /// What is wrong.
    pub problem: String,
}

/// Why something of a pod's volumes is left.
#[derive(Debug, thiserror::Error)]
pub enum TearDownError {
    /// The uid cannot name a folder, so there is none.
    #[error("{uid:?} is not a pod's uid")]
    Uid {
        /// What was given.
        uid: String,
    },
    /// Something cannot be unmounted or removed.
    #[error("cannot remove the volume at {path}")]
    Remove {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes and removes volumes. A clone is a handle.
#[derive(Debug, Clone)]
pub struct Volumes {
    options: Options,
    disks: Disks,
    /// Held while it is looked up who uses a volume.
    admission: Arc<Mutex<()>>,
}

impl Volumes {
    /// Prepares the folders. What earlier agents have left there goes on being used.
    pub fn open(options: Options) -> Result<Volumes, OpenVolumesError> {
        let prepare = |path: &Path, make: &dyn Fn() -> io::Result<()>| {
            make().map_err(|source| OpenVolumesError {
                path: path.to_owned(),
                source,
            })
        };
        let run_dir = &options.run_dir;
        prepare(run_dir, &|| {
            mount_new(
                "tmpfs",
                run_dir,
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                ROOT_OPTIONS,
            )?;
            make_private(run_dir)
        })?;
        let pods = options.state_dir.join(PODS);
        prepare(&pods, &|| {
            fs::create_dir_all(&pods)?;
            fs::set_permissions(&options.state_dir, fs::Permissions::from_mode(0o711))
        })?;
        let disks = Disks::new(options.state_dir.join("disks"));
        Ok(Volumes {
            options,
            disks,
            admission: Arc::default(),
        })
    }

    /// Brings every volume of the pod to what it is to be. Those that cannot be are told of; the others are ready.
    ///
    /// Where a container sees a volume follows from the pod and what it refers to; give [`Volumes::mounts`] the same.
    pub fn set_up(&self, order: Order<'_>) -> Result<(), Vec<SetUpError>> {
        let pod = order.facts.pod;
        let failed = |volume: &str, problem: String| SetUpError {
            volume: volume.to_owned(),
            problem,
        };
        let Some(places) = self.places(pod) else {
            return Err(vec![failed("", "the pod's uid cannot name a folder".to_owned())]);
        };
        let mut failures = Vec::new();
        for (volume, source) in plan(order.facts, order.tokens) {
            let made = source.and_then(|source| {
                self.admit(&order, &volume)?;
                self.make(&places, pod, &volume, source, order.images)
            });
            failures.extend(made.err().map(|problem| failed(&volume, problem)));
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures),
        }
    }

    /// What a container of the pod is to see of its volumes.
    pub fn mounts(
        &self,
        pod: &Pod,
        references: &References,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, MountError> {
        let places = self.places(pod);
        mounts::mounts(pod, container, env, |volume| {
            let places = places.as_ref()?;
            of_claim(pod, references, volume).or_else(|| places.of(volume))
        })
    }

    /// Where what the pod's volumes hold can be counted.
    pub fn measurable(&self, pod: &Pod, references: &References) -> Vec<VolumePlace> {
        let Some(own) = self.places(pod) else {
            return Vec::new();
        };
        places::places(pod, references, |volume| Some(own.of(volume)?.0))
    }

    /// The tokens that the pod's volumes show now.
    pub fn shown_tokens(&self, pod: &Pod) -> BTreeMap<TokenWanted, String> {
        let Some(places) = self.places(pod) else {
            return BTreeMap::new();
        };
        let shown = token_places(pod)
            .into_iter()
            .filter_map(|(volume, path, wanted)| {
                let token = fs::read_to_string(places.run.join(volume).join(path)).ok()?;
                Some((wanted, token))
            });
        shown.collect()
    }

    /// Removes what there is of a pod's volumes. Doing it again is harmless.
    pub fn tear_down(&self, uid: &str) -> Result<(), TearDownError> {
        if !is_usable(uid) {
            return Err(TearDownError::Uid { uid: uid.to_owned() });
        }
        let run = self.options.run_dir.join(uid);
        for volume in entries(&run).map_err(|source| leftover(&run, source))? {
            unmount(&volume).map_err(|source| leftover(&volume, source))?;
        }
        for folder in [run, self.options.state_dir.join(PODS).join(uid)] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(leftover(&folder, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The pods that have volumes here.
    pub fn pods(&self) -> io::Result<Vec<String>> {
        let folders = [self.options.run_dir.clone(), self.options.state_dir.join(PODS)];
        let mut uids = Vec::new();
        for folder in folders {
            let names = entries(&folder)?.into_iter();
            uids.extend(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
        }
        uids.sort();
        uids.dedup();
        Ok(uids)
    }

    /// Undoes [`Volumes::open`] once no pod has volumes.
    pub fn close(&self) -> io::Result<()> {
        unmount(&self.options.run_dir)
    }

    fn admit(&self, order: &Order<'_>, volume: &str) -> Result<(), String> {
        let facts = order.facts;
        let _one_at_a_time = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        exclusive::admit(&self.options.run_dir, facts.pod, facts.references, volume)
    }

    /// Makes one volume.
    fn make(
        &self,
        places: &Places,
        pod: &Pod,
        volume: &str,
        source: Source,
        images: &BTreeMap<String, Vec<PathBuf>>,
    ) -> Result<(), String> {
        let run = places.run.join(volume);
        let give = |is_mine: bool| match Ownership::of(pod, false).filter(|_| is_mine) {
            Some(ownership) => ownership.apply(&run).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        match source {
            Source::Disk(disk) => {
                let was_mounted = is_mounted(&run).unwrap_or_default();
                self.disks.mount(&disk, &run).map_err(|error| report(&error))?;
                give(!was_mounted)
            }
            Source::Share(share) => mount_share(&share, &run).map_err(|error| report(&error)),
            source => places.make(pod, volume, source, images),
        }
    }

    /// How much a disk of this node holds; nothing when it is not here.
    pub fn disk_bytes(&self, name: &str) -> Option<u64> {
        self.disks.bytes(name)
    }

    /// Lets a disk hold more, mounted or not.
    pub fn grow_disk(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.disks.grow(name, bytes)
    }

    /// Removes a disk and all that is on it; not one that is mounted.
    pub fn remove_disk(&self, name: &str) -> Result<(), DiskError> {
        self.disks.remove(name)
    }

    fn places(&self, pod: &Pod) -> Option<Places> {
        let uid = pod.metadata.uid.as_deref().filter(|uid| is_usable(uid))?;
        Some(Places {
            run: self.options.run_dir.join(uid),
            disk: self.options.state_dir.join(PODS).join(uid),
        })
    }
}

const PODS: &str = "pods";

/// Whether a uid can name a folder.
fn is_usable(uid: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !uid.is_empty() && uid.len() <= 200 && !uid.starts_with('.') && uid.bytes().all(is_plain)
}

fn leftover(path: &Path, source: io::Error) -> TearDownError {
    TearDownError::Remove {
        path: path.to_owned(),
        source,
    }
}

/// What is in a folder; nothing where there is none.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Where one pod's volumes are.
struct Places {
    run: PathBuf,
    disk: PathBuf,
}

impl Places {
    /// Makes one volume.
    fn make(
        &self,
        pod: &Pod,
        volume: &str,
        source: Source,
        images: &BTreeMap<String, Vec<PathBuf>>,
    ) -> Result<(), String> {
        let run = self.run.join(volume);
        let ownership = Ownership::of(pod, false);
        let ownership = ownership.as_ref();
        let made = match source {
            Source::Disk(_) | Source::Share(_) => return Err("it is mounted by other means".to_owned()),
            Source::Files(files) => write_files(&run, &files, Ownership::of(pod, true).as_ref()),
            Source::Folder => empty_dir::on_disk(&self.disk.join(volume), ownership),
            Source::Memory { bytes } => empty_dir::in_memory(&run, bytes, ownership),
            Source::HugePages { page_size } => empty_dir::huge_pages(&run, page_size.as_deref(), ownership),
            Source::Path { path, kind } => return host_path::prepare(&path, kind),
            Source::Image { reference } => match images.get(volume) {
                Some(layers) => image::mount_layers(&run, layers),
                None => return Err(format!("image {reference} is not on this node")),
            },
        };
        made.map_err(|error| error.to_string())
    }

    /// Where a volume is, and whether containers may only read it.
    fn of(&self, volume: &Volume) -> Option<(PathBuf, bool)> {
        if let Some(wanted) = &volume.host_path {
            return Some((PathBuf::from(&wanted.path), false));
        }
        let run = self.run.join(&volume.name);
        // Mounted for the pod; whoever may not write to it says so where it is mounted.
        if volume.ephemeral.is_some() || volume.nfs.is_some() {
            return Some((run, false));
        }
        if let Some(wanted) = &volume.persistent_volume_claim {
            return Some((run, wanted.read_only == Some(true)));
        }
        if let Some(wanted) = &volume.empty_dir {
            let is_disk = wanted.medium.as_deref().unwrap_or_default().is_empty();
            let place = if is_disk {
                self.disk.join(&volume.name)
            } else {
                run
            };
            return Some((place, false));
        }
        // What the control plane decides on is not for containers to change: CVE-2017-1002102.
        Some((run, true))
    }
}

/// Where a claim's volume is, if that is a place of the node's own and not one made for the pod.
fn of_claim(pod: &Pod, references: &References, volume: &Volume) -> Option<(PathBuf, bool)> {
    let (claim, made_for_pod) = claims::claim_of(pod, volume)?;
    let claim_of_pod = volume.persistent_volume_claim.as_ref();
    let is_read_only = claim_of_pod.is_some_and(|claim| claim.read_only == Some(true));
    match persistent::source(pod, references, &claim, made_for_pod) {
        Ok(Source::Path { path, .. }) => Some((path, is_read_only)),
        _ => None,
    }
}

fn write_files(volume: &Path, files: &Files, ownership: Option<&Ownership>) -> io::Result<()> {
    if !volume.is_dir() {
        fs::create_dir_all(volume)?;
        fs::set_permissions(volume, fs::Permissions::from_mode(0o777))?;
    }
    atomic::write(volume, files, ownership).map(drop)
}
