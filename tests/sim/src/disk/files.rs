//! Files on a simulated disk: what is durable of their content and of their names, and what is not yet.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_raft::platform::{DiskFile, Files};

use super::Disk;
use super::tree::flip;
use crate::chance::Chance;

type Content = Arc<Mutex<FileContent>>;

/// The names of a disk; folders are parts of names only.
#[derive(Default)]
pub(super) struct Folder {
    current: BTreeMap<PathBuf, Content>,
    durable: BTreeMap<PathBuf, Content>,
}

#[derive(Default)]
struct FileContent {
    current: Vec<u8>,
    durable: Vec<u8>,
}

impl Folder {
    /// Keeps each change of a name, and each file's unsynced content, or not, or a part of it.
    pub(super) fn cut(&mut self, chance: &Chance) {
        let mut names: Vec<PathBuf> = self.current.keys().chain(self.durable.keys()).cloned().collect();
        names.sort();
        names.dedup();
        for name in names {
            let survivor = if chance.one_in(2) {
                self.current.get(&name)
            } else {
                self.durable.get(&name)
            };
            match survivor.cloned() {
                Some(content) => self.durable.insert(name, content),
                None => self.durable.remove(&name),
            };
        }
        self.current = self.durable.clone();
        for content in self.current.values() {
            lock(content).cut(chance);
        }
    }

    /// Flips a bit of one file.
    pub(super) fn flip_a_bit(&mut self, chance: &Chance) -> bool {
        let filled = self
            .current
            .values()
            .filter(|content| !lock(content).current.is_empty());
        let Some(content) = chance.pick(&filled.cloned().collect::<Vec<_>>()) else {
            return false;
        };
        let mut content = lock(&content);
        flip(&mut content.current, chance);
        content.durable = content.current.clone();
        true
    }
}

impl FileContent {
    fn cut(&mut self, chance: &Chance) {
        if self.current == self.durable {
            return;
        }
        match chance.number(0..3) {
            0 => self.current = self.durable.clone(),
            1 => {}
            _ => {
                // Torn: new up to some byte, old from there on.
                let torn_at = chance.number(0..self.current.len() as u64 + 1) as usize;
                let mut torn = self.current[..torn_at].to_vec();
                torn.extend(self.durable.iter().skip(torn_at));
                self.current = torn;
            }
        }
        self.durable = self.current.clone();
    }
}

fn lock(content: &Content) -> MutexGuard<'_, FileContent> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file as one process has it open.
struct SimFile {
    disk: Disk,
    content: Content,
    generation: u64,
}

impl Disk {
    fn file(&self, content: Content) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            disk: self.clone(),
            content,
            generation: self.state().generation,
        })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Disk({})", self.name)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SimFile({:?})", self.disk)
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Files for Disk {
    fn create_folder(&self, _path: &Path) -> io::Result<()> {
        self.check("create folder")
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        let names = state.folder.current.keys();
        Ok(names
            .filter(|name| name.parent() == Some(folder))
            .cloned()
            .collect())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check_write("create")?;
        let content = Content::default();
        {
            let names = &mut self.state().folder.current;
            if names.contains_key(path) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            names.insert(path.to_owned(), Arc::clone(&content));
        }
        Ok(self.file(content))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check("open")?;
        let content = {
            let names = &mut self.state().folder.current;
            Arc::clone(names.entry(path.to_owned()).or_default())
        };
        Ok(self.file(content))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check("open")?;
        let content = self.state().folder.current.get(path).cloned();
        Ok(self.file(content.ok_or_else(not_found)?))
    }

    fn rename_durably(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_write("rename")?;
        let folder = &mut self.state().folder;
        let content = folder.current.remove(from).ok_or_else(not_found)?;
        folder.current.insert(to.to_owned(), content);
        let is_beside = |name: &Path| name.parent() == to.parent();
        folder.durable.retain(|name, _| !is_beside(name));
        for (name, content) in &folder.current {
            if is_beside(name) {
                folder.durable.insert(name.clone(), Arc::clone(content));
            }
        }
        Ok(())
    }

    fn bytes_on_disk(&self, path: &Path) -> io::Result<u64> {
        let content = self.state().folder.current.get(path).cloned();
        Ok(lock(&content.ok_or_else(not_found)?).current.len() as u64)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check("remove")?;
        let removed = self.state().folder.current.remove(path);
        removed.map(|_| ()).ok_or_else(not_found)
    }
}

impl SimFile {
    fn check_owner(&self) -> io::Result<()> {
        if self.disk.state().generation == self.generation {
            return Ok(());
        }
        Err(io::Error::other("the process that had it open is gone"))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.content);
        let start = content.current.len().min(offset as usize);
        let read = buffer.len().min(content.current.len() - start);
        buffer[..read].copy_from_slice(&content.current[start..start + read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_owner()?;
        self.disk.check_write("write")?;
        let mut content = lock(&self.content);
        let end = offset as usize + bytes.len();
        if content.current.len() < end {
            content.current.resize(end, 0);
        }
        content.current[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.check_owner()?;
        self.disk.check("sync")?;
        let mut content = lock(&self.content);
        content.durable = content.current.clone();
        Ok(())
    }
}
