//! Writes a set of files so that readers see all of the old ones or all of the new ones.
//!
//! The layout is that of kubelet's AtomicWriter, which programs know: the files are in a folder with a time in its
//! name, `..data` is a link to that folder, and each name in the volume is a link through `..data`. A new set goes
//! into a new folder; renaming one link over `..data` makes all of it visible at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use rand::Rng;

use crate::content::Files;
use crate::ownership::Ownership;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings the volume to `files`. Says whether anything had to be written.
pub(crate) fn write(volume: &Path, files: &Files, ownership: Option<&Ownership>) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    let current = fs::read_link(volume.join(DATA))
        .ok()
        .map(|name| volume.join(name));
    if let Some(current) = &current
        && holds(current, files)?
    {
        // The links too: the writer before may have been killed before it had made them.
        link_names(volume, files)?;
        return Ok(false);
    }
    let folder = new_folder(volume)?;
    fill(&folder, files)?;
    if let Some(ownership) = ownership {
        ownership.apply(&folder)?;
    }
    publish(volume, &folder)?;
    link_names(volume, files)?;
    remove_leftovers(volume, &folder)?;
    Ok(true)
}

/// The API server lets no other paths in; static pods come without it.
fn check(path: &str) -> io::Result<()> {
    let mut parts = Path::new(path).components();
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.is_empty() || path.starts_with("..") || !parts.all(is_plain) {
        let problem = format!("invalid path {path:?}: it must be relative, without .. and not begin with ..");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    Ok(())
}

/// Whether the folder has these files, with this content, and no others.
fn holds(folder: &Path, files: &Files) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    if !folder.is_dir() {
        return Ok(false);
    }
    collect(folder, folder, &mut present)?;
    let wanted: BTreeSet<PathBuf> = files.keys().map(PathBuf::from).collect();
    if present != wanted {
        return Ok(false);
    }
    for (path, entry) in files {
        if fs::read(folder.join(path))? != entry.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(path) = entry.path().strip_prefix(root) {
            found.insert(path.to_owned());
        }
    }
    Ok(())
}

fn new_folder(volume: &Path) -> io::Result<PathBuf> {
    let time = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let number: u32 = rand::rng().random();
    let folder = volume.join(format!("..{time}.{number}"));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn fill(folder: &Path, files: &Files) -> io::Result<()> {
    for (path, entry) in files {
        let path = folder.join(path);
        make_parents(folder, &path)?;
        let mut file = File::create_new(&path)?;
        file.write_all(&entry.data)?;
        // Not at creation, where the umask would take some away.
        file.set_permissions(fs::Permissions::from_mode(entry.mode))?;
        if let Some(owner) = entry.owner {
            chown(&path, Some(owner), None)?;
        }
    }
    Ok(())
}

fn make_parents(folder: &Path, path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(folder);
    let missing: Vec<&Path> = parent
        .ancestors()
        .take_while(|ancestor| *ancestor != folder && !ancestor.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn publish(volume: &Path, folder: &Path) -> io::Result<()> {
    let new = volume.join(DATA_NEW);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(folder.file_name().unwrap_or_default(), &new)?;
    fs::rename(&new, volume.join(DATA))
}

/// Makes a link for each name at the top, and removes those of names that are gone.
fn link_names(volume: &Path, files: &Files) -> io::Result<()> {
    let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = files.keys().map(|path| top(path)).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(volume.join(name))?;
        }
    }
    Ok(())
}

/// Removes the folders of sets before, the one of a writer that was killed among them.
fn remove_leftovers(volume: &Path, current: &Path) -> io::Result<()> {
    for entry in fs::read_dir(volume)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_set = name.starts_with("..") && name != DATA && name != DATA_NEW;
        if is_set && path != current {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Entry;

    fn files(list: &[(&str, &str)]) -> Files {
        let entry = |text: &str| Entry {
            data: text.as_bytes().to_vec(),
            mode: 0o640,
            owner: None,
        };
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), entry(text)))
            .collect()
    }

    fn listing(volume: &Path) -> Vec<String> {
        let entries = fs::read_dir(volume).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .map(|name| match name.starts_with("..2") {
                true => "..time".to_owned(),
                false => name,
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_set_is_replaced_whole_through_one_link() {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path();
        assert!(write(path, &files(&[("a", "1"), ("d/e", "2")]), None).unwrap());
        assert_eq!(listing(path), ["..data", "..time", "a", "d"]);
        assert_eq!(fs::read_link(path.join("d")).unwrap(), Path::new("..data/d"));
        let mode = fs::metadata(path.join("d/e")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let before = fs::read_link(path.join("..data")).unwrap();

        assert!(!write(path, &files(&[("a", "1"), ("d/e", "2")]), None).unwrap());
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), before);

        assert!(write(path, &files(&[("a", "3"), ("b", "4")]), None).unwrap());
        assert_eq!(listing(path), ["..data", "..time", "a", "b"]);
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join(before).exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_put_right() {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path();
        write(path, &files(&[("a", "1")]), None).unwrap();
        fs::create_dir(path.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("..2020_01_01_00_00_00.1", path.join("..data_tmp")).unwrap();
        fs::remove_file(path.join("a")).unwrap();
        assert!(!write(path, &files(&[("a", "1")]), None).unwrap());
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
        assert!(write(path, &files(&[("a", "2")]), None).unwrap());
        assert_eq!(listing(path), ["..data", "..time", "a"]);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let volume = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", "./a"] {
            assert!(
                write(volume.path(), &files(&[(path, "")]), None).is_err(),
                "{path}"
            );
        }
        assert_eq!(listing(volume.path()), Vec::<String>::new());
    }
}
