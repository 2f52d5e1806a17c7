//! A disk that loses its write cache when its power is cut, as real ones do.
//!
//! qemu cannot play one by itself: with any of its cache modes, what a guest has written is in this machine's memory or on
//! its disk, and outlives a killed qemu, flushed or not. So the disk is served to qemu from here, over NBD: writes are held
//! in memory until the guest flushes, and after a cut each sector that was not flushed is there, or not, as
//! [`Cut`] says.
//!
//! *Guarantees*: what the guest was told is flushed is there after a cut; nothing else is there of necessity.

mod cache;
mod nbd;

use std::{
    fs::{self, File},
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use self::cache::CachedDisk;
pub use self::cache::{Loss, SECTOR_BYTES};
use crate::image::succeed;

/// What a power cut does to the writes that are in the cache.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// None of them has reached the platter.
    LosesAll,
    /// Each has, or has not, by chance: a share of them between none and all.
    LosesSome {
        /// The same seed decides the same way.
        seed: u64,
    },
}

/// A disk of a virtual machine.
pub struct Disk {
    shared: Arc<Shared>,
    socket: PathBuf,
    /// Serves the machine that runs.
    server: Option<JoinHandle<()>>,
}

impl Disk {
    /// A disk with an empty ext4 file system, whose files are `path` with endings.
    ///
    /// # Panics
    ///
    /// If files cannot be made, as for all that is missing here.
    pub fn format(path: &Path, mib: u64) -> Self {
        let platter = path.with_extension("platter");
        let file = File::create_new(&platter).expect("a file can be made");
        file.set_len(mib << 20).expect("a sparse file can be made");
        let mut mkfs = Command::new("mkfs.ext4");
        // All at once, so that the guest's kernel does not write for minutes what nobody asked for.
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        succeed(mkfs.args(["-b", &SECTOR_BYTES.to_string()]).arg(&platter));
        let file = File::options().read(true).write(true).open(&platter);
        let cached = CachedDisk::new(file.expect("a file can be opened"));
        Self {
            shared: Arc::new(Shared {
                cached: Mutex::new(cached.expect("a file can be looked at")),
                flushes: Mutex::default(),
                flush_came: Condvar::new(),
            }),
            socket: path.with_extension("socket"),
            server: None,
        }
    }

    /// After so many more, no flush is carried out or answered, until the power is cut.
    pub(super) fn hold_flushes(&self, after: u32) {
        *lock(&self.shared.flushes) = Flushes::Hold { after };
    }

    /// Whether a flush is held before `limit` is over: what it is for is in the cache then, and may be lost.
    pub(super) fn wait_for_flush(&self, limit: Duration) -> bool {
        let flushes = lock(&self.shared.flushes);
        let changed = &self.shared.flush_came;
        let waited = changed.wait_timeout_while(flushes, limit, |flushes| *flushes != Flushes::Held);
        let (flushes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *flushes == Flushes::Held
    }

    /// Where a qemu that starts now finds it; one at a time.
    pub(super) fn attach(&mut self) -> &Path {
        assert!(self.server.is_none(), "the disk is in another machine");
        // The socket of the boot before.
        fs::remove_file(&self.socket).ok();
        let listener = UnixListener::bind(&self.socket).expect("a socket can be made");
        let shared = Arc::clone(&self.shared);
        self.server = Some(std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a socket can be accepted");
            match nbd::serve(&stream, &*shared) {
                Err(error) if !gone(&error) => panic!("the disk was not understood: {error}"),
                _ => {}
            }
        }));
        &self.socket
    }

    /// What the machine, whose qemu has ended, had not flushed is lost.
    pub(super) fn cut_power(&mut self, cut: Cut) -> Loss {
        self.detach();
        *lock(&self.shared.flushes) = Flushes::Done;
        let mut cached = lock(&self.shared.cached);
        let loss = match cut {
            Cut::LosesAll => cached.cut_power(|| false),
            Cut::LosesSome { seed } => {
                let mut random = SmallRng::seed_from_u64(seed);
                let kept = random.random();
                cached.cut_power(|| random.random_bool(kept))
            }
        };
        loss.expect("a file can be written")
    }

    /// Waits until all that qemu had said has been done.
    fn detach(&mut self) {
        if let Some(server) = self.server.take() {
            // For a qemu that never came: the one connection that is waited for. Else nobody takes it.
            UnixStream::connect(&self.socket).ok();
            server.join().expect("the disk does not panic");
        }
    }
}

/// What the disk and its server have in common.
struct Shared {
    cached: Mutex<CachedDisk>,
    flushes: Mutex<Flushes>,
    flush_came: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Flushes {
    /// They are carried out.
    #[default]
    Done,
    /// So many more are.
    Hold { after: u32 },
    /// One has come, and waits.
    Held,
}

impl nbd::Export for Shared {
    fn bytes(&self) -> u64 {
        lock(&self.cached).bytes()
    }

    fn read(&self, offset: u64, content: &mut [u8]) -> io::Result<()> {
        lock(&self.cached).read(offset, content)
    }

    fn write(&self, offset: u64, content: &[u8]) -> io::Result<()> {
        lock(&self.cached).write(offset, content)
    }

    fn flush(&self) -> io::Result<bool> {
        let mut flushes = lock(&self.flushes);
        match &mut *flushes {
            Flushes::Done => {}
            Flushes::Hold { after: left @ 1.. } => *left -= 1,
            Flushes::Hold { after: 0 } | Flushes::Held => {
                *flushes = Flushes::Held;
                self.flush_came.notify_all();
                return Ok(false);
            }
        }
        lock(&self.cached).flush().map(|()| true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A killed qemu is gone in the middle of a word.
fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
