//! The last code before a container's program: finds it and executes it.
//!
//! Runs in the container's namespaces with the container's user and capabilities.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};

use super::privileges;
use super::report::{Report, send};
use crate::layout::ProcessRecord;
use crate::protocol::StartFailure;
use crate::seccomp::Filters;
use crate::sys;

/// Executes the program that the spec names, and reports over a pipe when that fails: the pipe closes
/// silently when it succeeds.
#[derive(Clone)]
pub(super) struct ReportingExecutor {
    pub(super) report: Arc<File>,
    /// What the container's processes may do.
    pub(super) process: Arc<ProcessRecord>,
    pub(super) filters: Option<Arc<Filters>>,
}

impl ReportingExecutor {
    fn fail(&self, failure: &StartFailure) -> String {
        // Nobody listens any more: the shim is gone, and with it whoever wants to know.
        send(&self.report, &Report::Failed(failure.clone())).ok();
        format!("{failure:?}")
    }
}

impl Executor for ReportingExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        find(&arguments(spec), &self.process.env)
            .map(drop)
            .map_err(|failure| ExecutorValidationError::ArgValidationError(self.fail(&failure)))
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // `exec` passes the spec's environment on; this process needs none.
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = become_program(&arguments(spec), &self.process, self.filters.as_deref());
        Err(ExecutorError::Other(self.fail(&failure)))
    }
}

/// Gives up privileges and executes the program; returns only when that fails.
pub(super) fn become_program(
    arguments: &[String],
    process: &ProcessRecord,
    filters: Option<&Filters>,
) -> StartFailure {
    sys::reset_signals();
    let program = match find(arguments, &process.env) {
        Ok(program) => program,
        Err(failure) => return failure,
    };
    if let Err(error) = privileges::drop_privileges(process, filters) {
        return StartFailure::Create {
            reason: format!("cannot give up privileges: {error}"),
        };
    }
    match execute(&program, arguments, &process.env) {
        Ok(never) => match never {},
        Err(errno) => not_executable(&arguments[0], errno),
    }
}

fn arguments(spec: &Spec) -> Vec<String> {
    spec.process()
        .as_ref()
        .and_then(|process| process.args().clone())
        .unwrap_or_default()
}

fn execute(program: &Path, arguments: &[String], environment: &[String]) -> nix::Result<Infallible> {
    let c_strings = |texts: &[String]| {
        texts
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let arguments = c_strings(arguments).map_err(|_| Errno::EINVAL)?;
    let environment = c_strings(environment).map_err(|_| Errno::EINVAL)?;
    std::io::stderr().flush().ok();
    execve(&path, &arguments, &environment)
}

/// Where the program is, as a shell would find it.
fn find(arguments: &[String], environment: &[String]) -> Result<PathBuf, StartFailure> {
    let Some(command) = arguments.first().filter(|command| !command.is_empty()) else {
        return Err(StartFailure::BadSpec {
            reason: "no command specified".to_owned(),
        });
    };
    if command.contains('/') {
        return match check(Path::new(command)) {
            Ok(()) => Ok(PathBuf::from(command)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(StartFailure::PathNotFound {
                command: command.clone(),
            }),
            Err(errno) => Err(not_executable(command, errno)),
        };
    }
    let mut refused = None;
    let path = environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or_default();
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(OsStr::new(command));
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => refused = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(errno) => not_executable(command, errno),
        None => StartFailure::CommandNotFound {
            command: command.clone(),
        },
    })
}

fn check(program: &Path) -> nix::Result<()> {
    if nix::sys::stat::stat(program)?.st_mode & libc::S_IFMT == libc::S_IFREG {
        access(program, AccessFlags::X_OK)
    } else {
        Err(Errno::EACCES)
    }
}

fn not_executable(command: &str, errno: Errno) -> StartFailure {
    let reason = errno.desc().to_lowercase();
    StartFailure::NotExecutable {
        command: command.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(command: &str) -> Result<PathBuf, StartFailure> {
        find(&[command.to_owned()], &["PATH=/nowhere:/etc:/bin".to_owned()])
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert_eq!(found("sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("/bin/sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(
            found("nothing"),
            Err(StartFailure::CommandNotFound {
                command: "nothing".into()
            })
        );
        assert_eq!(
            found("/no/thing"),
            Err(StartFailure::PathNotFound {
                command: "/no/thing".into()
            })
        );
        let denied = |command: &str| StartFailure::NotExecutable {
            command: command.into(),
            reason: "permission denied".into(),
        };
        assert_eq!(found("/etc/passwd"), Err(denied("/etc/passwd")));
        assert_eq!(found("fstab"), Err(denied("fstab")));
        assert_eq!(found("/bin/"), Err(denied("/bin/")));
    }
}
