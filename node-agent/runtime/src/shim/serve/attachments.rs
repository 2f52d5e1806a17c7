//! What the shim does for a client that attaches to a running container.

use std::io;
use std::os::fd::OwnedFd;

use super::super::client::Interest;
use super::{Container, Input, ReplyTo, Shim};
use crate::exec::AttachSpec;
use crate::protocol::{Handles, Refusal};
use crate::sys;

/// What an agent gets of a program's streams.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) terminal: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) process: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn handles(&self) -> Handles {
        Handles {
            terminal: self.terminal.is_some(),
            stdin: self.stdin.is_some(),
            stdout: self.stdout.is_some(),
            stderr: self.stderr.is_some(),
            process: self.process.is_some(),
        }
    }

    /// In the order of the fields of [`Handles`].
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        [self.terminal, self.stdin, self.stdout, self.stderr, self.process]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Shim {
    pub(super) fn attach(
        &mut self,
        id: String,
        spec: &AttachSpec,
        reply_to: ReplyTo,
    ) -> Result<Streams, Refusal> {
        let container = self.containers.get_mut(&id).ok_or(Refusal::UnknownContainer)?;
        if container.state.finished.is_some() {
            return Err(Refusal::NotRunning);
        }
        let streams = streams_of(container, spec, reply_to.client).map_err(|error| {
            container.log.detach(reply_to.client);
            Refusal::Other(error.to_string())
        })?;
        if let Some(client) = self.clients.get_mut(&reply_to.client) {
            client.interest = Interest::Container(id);
        }
        Ok(streams)
    }
}

fn streams_of(container: &mut Container, spec: &AttachSpec, client: u64) -> io::Result<Streams> {
    let mut streams = Streams::default();
    match &container.input {
        Input::Terminal(master) => {
            if let Some(size) = spec.size {
                sys::set_terminal_size(master, size)?;
            }
            streams.terminal = Some(master.try_clone()?);
        }
        Input::Pipe { writer, once: false } if spec.stdin => streams.stdin = Some(writer.try_clone()?),
        Input::Pipe { once: true, .. } if spec.stdin => {
            // The client's end is then the only one: when it is closed, so is the container's stdin.
            if let Input::Pipe { writer, .. } = std::mem::replace(&mut container.input, Input::Nothing) {
                streams.stdin = Some(writer);
            }
        }
        Input::Pipe { .. } | Input::Nothing => {}
    }
    if spec.stdout {
        streams.stdout = container.log.attach(0, client)?;
    }
    if spec.stderr {
        streams.stderr = container.log.attach(1, client)?;
    }
    Ok(streams)
}
