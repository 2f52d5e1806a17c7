//! How a process becomes a container's: its user, its capabilities, no way to gain more.
//!
//! Runs in forks of the shim, right before a program is executed: at once for the container's own program, whose
//! user libcontainer has set already, and for those executed later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::layout::ProcessRecord;
use crate::seccomp::Filters;
use crate::spec::User;

/// The number of the last capability that Linux has so far.
const LAST_CAPABILITY: u64 = 40;

/// Takes the user's ids; what the process may do stays until [`drop_privileges`].
pub(super) fn become_user(user: &User) -> io::Result<()> {
    let groups: Vec<Gid> = user
        .additional_gids
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_keep_capabilities(true)?;
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(set_keep_capabilities(false)?)
}

/// Gives up all that the container's processes must not be able to do.
///
/// A filter may be loaded with `no_new_privs` or by a privileged process only: without the former it comes before
/// the capabilities go, otherwise after, where it is in the way of less.
pub(super) fn drop_privileges(process: &ProcessRecord, filters: Option<&Filters>) -> io::Result<()> {
    let held = capabilities(None)?.permitted;
    // A change of user has emptied the effective set.
    set_sets(held)?;
    own_standard_streams(&process.user);
    for number in 0..=LAST_CAPABILITY {
        if process.capabilities >> number & 1 == 0 {
            drop_from_bounding_set(1 << number)?;
        }
    }
    let load = || filters.map_or(Ok(()), Filters::load);
    let kept = CapabilitySet::from_bits_retain(process.capabilities) & held;
    if process.no_new_privileges {
        set_no_new_privs(true)?;
        set_sets(kept)?;
        return load();
    }
    load()?;
    set_sets(kept)
}

fn set_sets(capabilities: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn drop_from_bounding_set(capability: u64) -> io::Result<()> {
    use rustix::thread::{capability_is_in_bounding_set, remove_capability_from_bounding_set};
    let capability = CapabilitySet::from_bits_retain(capability);
    match capability_is_in_bounding_set(capability) {
        // An older kernel does not know it.
        Ok(false) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Ok(true) => Ok(remove_capability_from_bounding_set(capability)?),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets the user open its pipes and terminal by name (`/dev/stdout`), as programs that log there do.
fn own_standard_streams(user: &User) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if is_own(stream) {
            // It fails where the user's id is not mapped; the streams themselves work all the same.
            fchown(stream, Some(Uid::from_raw(user.uid)), None).ok();
        }
    }
}

/// Pipes and terminals are the container's own; `/dev/null` is not.
fn is_own(stream: BorrowedFd<'_>) -> bool {
    let Ok(found) = fstat(stream) else { return false };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => rustix::termios::isatty(stream),
        _ => false,
    }
}
