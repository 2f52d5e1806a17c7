//! An archive from a container into local files. The container is not trusted: nothing is written outside the target.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use tar::EntryType;

/// Unpacks what an archive holds as `prefix` to `to`; into it, if it is a folder and the archive a single file.
///
/// Links are made last, so that nothing is written through them, and only if they stay inside. Answers what was left
/// out; an archive that would write outside is refused as a whole from there on.
pub(super) fn unpack(reader: impl Read, prefix: &str, to: &Path) -> anyhow::Result<Vec<String>> {
    let mut archive = tar::Archive::new(reader);
    let mut target = Target {
        root: to.to_owned(),
        links: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let mut is_empty = true;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let inside = inside(&name, prefix)?;
        if is_empty && inside.as_os_str().is_empty() && !entry.header().entry_type().is_dir() && to.is_dir() {
            target.root.push(prefix);
        }
        is_empty = false;
        target
            .add(&mut entry, &inside)
            .with_context(|| format!("cannot unpack {}", name.display()))?;
    }
    if is_empty {
        // Nothing came: whatever the reason, the other side tells it.
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    // A program that is killed for writing too much must not be: the padding of the archive is read to its end.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    target.finish()
}

/// The part of an archive's path below the prefix; refuses what leads elsewhere.
fn inside(name: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let is_plain = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !name.components().all(|part| is_plain(&part)) {
        bail!(
            "refusing the archive: {} leads outside the target",
            name.display()
        );
    }
    let plain: PathBuf = name
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    let below = match prefix {
        "." => Ok(plain.as_path()),
        prefix => plain.strip_prefix(prefix),
    };
    below.map(Path::to_owned).with_context(|| {
        format!(
            "refusing the archive: {} is not what was asked for",
            name.display()
        )
    })
}

struct Target {
    root: PathBuf,
    /// Links that are still to be made, by their path below the root.
    links: BTreeMap<PathBuf, PathBuf>,
    warnings: Vec<String>,
}

impl Target {
    fn add(&mut self, entry: &mut tar::Entry<'_, impl Read>, inside: &Path) -> anyhow::Result<()> {
        let path = self.path(inside)?;
        // What was a link until now is replaced.
        self.links.remove(inside);
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => Ok(make_folder(&path, mode, inside.as_os_str().is_empty())?),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Ok(write(&path, mode, entry)?)
            }
            EntryType::Symlink => {
                let to = link_target(entry)?;
                if !stays_inside(inside, &to) {
                    bail!(
                        "refusing the archive: its link to {} leads outside the target",
                        to.display()
                    );
                }
                self.links.insert(inside.to_owned(), to);
                Ok(())
            }
            EntryType::Link => self.hard_link(entry, &path),
            other => {
                let what = format!("{} is left out: it is no file ({other:?})", path.display());
                self.warnings.push(what);
                Ok(())
            }
        }
    }

    /// A path below the root, none of whose folders is a link.
    fn path(&self, inside: &Path) -> anyhow::Result<PathBuf> {
        let mut path = self.root.clone();
        if !inside.as_os_str().is_empty() && !path.is_dir() {
            fs::create_dir(&path)?;
        }
        for part in inside.parent().into_iter().flat_map(Path::components) {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => bail!("{} is no folder", path.display()),
                // Archives may leave folders out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&path)?,
                Err(error) => return Err(error.into()),
            }
        }
        path.extend(inside.file_name());
        Ok(path)
    }

    /// A second name for a file of the same archive.
    fn hard_link(&self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> anyhow::Result<()> {
        let name = link_target(entry)?;
        let prefix = entry
            .path()?
            .components()
            .next()
            .map(|part| part.as_os_str().to_owned());
        let prefix = prefix.unwrap_or_default();
        let below = inside(&name, &prefix.to_string_lossy())?;
        let first = self.path(&below)?;
        if !fs::symlink_metadata(&first).is_ok_and(|found| found.is_file()) {
            bail!(
                "refusing the archive: its link to {} is to no file in it",
                name.display()
            );
        }
        clear(path)?;
        Ok(fs::hard_link(first, path)?)
    }

    fn finish(self) -> anyhow::Result<Vec<String>> {
        for (inside, to) in &self.links {
            let path = self.path(inside)?;
            clear(&path)?;
            symlink(to, &path).with_context(|| format!("cannot make the link {}", path.display()))?;
        }
        Ok(self.warnings)
    }
}

fn link_target(entry: &tar::Entry<'_, impl Read>) -> anyhow::Result<PathBuf> {
    let target = entry.link_name()?.context("a link without a target")?;
    Ok(target.into_owned())
}

/// Whether a link at `inside` that says `to` stays below the root, whatever other links there are.
fn stays_inside(inside: &Path, to: &Path) -> bool {
    if inside.as_os_str().is_empty() {
        // The target itself would be the link.
        return false;
    }
    let mut depth = inside.components().count().saturating_sub(1);
    let mut has_descended = false;
    for part in to.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => {
                has_descended = true;
                depth += 1;
            }
            // After a name, which may itself be a link, the way up is not known.
            Component::ParentDir if depth > 0 && !has_descended => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Makes a folder, unless it is there. The target itself may be a link to one: it is the user's.
fn make_folder(path: &Path, mode: u32, is_target: bool) -> io::Result<()> {
    let is_there = match is_target {
        true => path.is_dir(),
        false => fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()),
    };
    if is_there {
        return Ok(());
    }
    fs::create_dir(path)?;
    // The owner must be able to write what follows.
    fs::set_permissions(path, Permissions::from_mode(mode | 0o700))
}

/// Makes a new file; what had its name is left alone where it has others, such as behind a link.
fn write(path: &Path, mode: u32, reader: &mut impl Read) -> io::Result<()> {
    clear(path)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    io::copy(reader, &mut file)?;
    Ok(())
}

/// Takes a name away, unless it is a folder's.
fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
