//! What happened, in order: printed when somebody looks, and summed up so that two runs can be compared.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where everything that happens is noted. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Notes>>);

struct Notes {
    now: u64,
    sum: Sum,
    is_printed: bool,
}

impl Trace {
    /// An empty trace, which is printed as it grows or only summed up.
    pub(crate) fn new(is_printed: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Notes {
            now: 0,
            sum: Sum(SUM_START),
            is_printed,
        })))
    }

    /// What is noted from now on happens at a time.
    pub(crate) fn set_now(&self, now: u64) {
        self.notes().now = now;
    }

    /// Notes something.
    #[allow(clippy::print_stdout, reason = "a replayed seed is read on the terminal")]
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let mut notes = self.notes();
        let now = notes.now;
        // A sum takes everything.
        let _ = writeln!(notes.sum, "{now} {what}");
        if notes.is_printed {
            println!("{now:6} {what}");
        }
    }

    /// A number that two runs share only if the same happened in both.
    pub(crate) fn sum(&self) -> u64 {
        self.notes().sum.0
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a.
struct Sum(u64);

const SUM_START: u64 = 0xcbf2_9ce4_8422_2325;

impl fmt::Write for Sum {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
