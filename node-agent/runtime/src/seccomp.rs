//! Seccomp filters: which system calls a container's processes may make.
//!
//! Profiles are compiled to the kernel's programs by a library in Rust alone, for libseccomp cannot be linked into a
//! static binary, and takes milliseconds at each start. Those of `RuntimeDefault` depend on the container's
//! capabilities only, and are kept as files that all shims of the node read.

mod compile;
mod default;
mod profile;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::Seccomp;

/// Where profiles come from and compiled ones are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folders {
    /// The operator's own profiles, JSON of the OCI runtime specification.
    pub(crate) profiles: PathBuf,
    /// Compiled ones, by this version of the program.
    pub(crate) compiled: PathBuf,
}

/// Why there is no filter; the message is shown to users.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("seccomp profile {name:?}: {} cannot be read: {source}", path.display())]
    Read {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("seccomp profile {name:?} must be a path below {}", folder.display())]
    Outside { name: String, folder: PathBuf },
    #[error("seccomp profile {name:?} is not usable: {reason}")]
    Bad { name: String, reason: String },
}

/// Programs for the kernel, to be loaded in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    programs: Vec<Vec<libc::sock_filter>>,
}

/// The filters of a container; `None` when nothing is forbidden.
pub(crate) fn filters(
    wanted: &Seccomp,
    capabilities: u64,
    folders: &Folders,
) -> Result<Option<Filters>, SeccompError> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => of_runtime(capabilities, folders).map(Some),
        Seccomp::Localhost(name) => of_file(name, folders).map(Some),
    }
}

fn of_runtime(capabilities: u64, folders: &Folders) -> Result<Filters, SeccompError> {
    let kept = folders.compiled.join(format!("default-{capabilities:x}"));
    if let Some(filters) = fs::read(&kept).ok().and_then(|bytes| Filters::decode(&bytes)) {
        return Ok(filters);
    }
    let filters = compile("RuntimeDefault", &default::profile(capabilities))?;
    // It is compiled again at the next start when it cannot be kept.
    keep(&kept, &filters).ok();
    Ok(filters)
}

fn of_file(name: &str, folders: &Folders) -> Result<Filters, SeccompError> {
    let relative = Path::new(name);
    let is_below = relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if !is_below || name.is_empty() {
        return Err(SeccompError::Outside {
            name: name.to_owned(),
            folder: folders.profiles.clone(),
        });
    }
    let path = folders.profiles.join(relative);
    let json = fs::read(&path).map_err(|source| SeccompError::Read {
        name: name.to_owned(),
        path,
        source,
    })?;
    let profile = profile::parse(&json).map_err(|reason| SeccompError::Bad {
        name: name.to_owned(),
        reason,
    })?;
    compile(name, &profile)
}

fn compile(name: &str, profile: &profile::Profile) -> Result<Filters, SeccompError> {
    let programs = compile::compile(profile).map_err(|error| SeccompError::Bad {
        name: name.to_owned(),
        reason: error.to_string(),
    })?;
    let instructions = |program: Vec<seccompiler::sock_filter>| {
        let same = |one: seccompiler::sock_filter| libc::sock_filter {
            code: one.code,
            jt: one.jt,
            jf: one.jf,
            k: one.k,
        };
        program.into_iter().map(same).collect()
    };
    Ok(Filters {
        programs: programs.into_iter().map(instructions).collect(),
    })
}

/// Whole or not at all: several forks may write the same file at once, each under a name of its own.
fn keep(path: &Path, filters: &Filters) -> io::Result<()> {
    let temporary = path.with_extension(std::process::id().to_string());
    fs::write(&temporary, filters.encode())?;
    fs::rename(&temporary, path)
}

/// Empties the folder of compiled profiles, which another version may have written, and compiles the usual one.
pub(crate) fn prepare(folders: &Folders, usual_capabilities: u64) -> io::Result<()> {
    crate::layout::remove_tree(&folders.compiled)?;
    fs::create_dir_all(&folders.compiled)?;
    of_runtime(usual_capabilities, folders)
        .map(drop)
        .map_err(io::Error::other)
}

impl Filters {
    /// Loads them into the calling thread, for good.
    pub(crate) fn load(&self) -> io::Result<()> {
        self.programs
            .iter()
            .try_for_each(|program| crate::sys::load_filter(program))
    }

    /// As a file: each program after its length, each instruction in eight bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for program in &self.programs {
            bytes.extend((program.len() as u64).to_le_bytes());
            for one in program {
                bytes.extend(one.code.to_le_bytes());
                bytes.extend([one.jt, one.jf]);
                bytes.extend(one.k.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Filters> {
        let (mut words, rest) = {
            let (words, rest) = bytes.as_chunks::<8>();
            (words.iter(), rest)
        };
        let mut programs = Vec::new();
        while let Some(length) = words.next() {
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let program: Vec<_> = words
                .by_ref()
                .take(length)
                .map(|word| instruction(*word))
                .collect();
            if program.len() != length {
                return None;
            }
            programs.push(program);
        }
        rest.is_empty().then_some(Filters { programs })
    }
}

fn instruction(word: [u8; 8]) -> libc::sock_filter {
    let [code_low, code_high, jt, jf, k0, k1, k2, k3] = word;
    libc::sock_filter {
        code: u16::from_le_bytes([code_low, code_high]),
        jt,
        jf,
        k: u32::from_le_bytes([k0, k1, k2, k3]),
    }
}

#[cfg(test)]
mod tests;
