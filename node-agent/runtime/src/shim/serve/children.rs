//! What the shim does when a child has ended.

use std::io;

use jiff::Timestamp;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::super::create;
use super::Shim;
use super::operations::OperationKind;
use crate::layout::write_json;
use crate::protocol::Message;
use crate::spec::{Exit, PidNamespace};

impl Shim {
    /// Reaps all children that have ended.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        // An error is ECHILD: no child is left.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.early_exits.push((pid.as_raw_nonzero().get(), status));
        }
        self.settle_early_exits();
        Ok(())
    }

    /// Gives exits to the containers they belong to; keeps the others while a start is at work.
    pub(super) fn settle_early_exits(&mut self) {
        for (pid, status) in std::mem::take(&mut self.early_exits) {
            let owner = self
                .containers
                .iter()
                .find(|(_, container)| container.state.finished.is_none() && container.state.pid == pid);
            match owner.map(|(id, _)| id.clone()) {
                Some(id) => self.finish(&id, status),
                None if self.finish_program(pid, status) => {}
                None if self.pause == Some(pid) => self.pause_has_ended = true,
                None if self.is_starting() => self.early_exits.push((pid, status)),
                None => {}
            }
        }
    }

    fn is_starting(&self) -> bool {
        self.operations.iter().any(|operation| {
            matches!(
                operation.kind,
                OperationKind::Start { .. } | OperationKind::Exec(_)
            )
        })
    }

    fn finish(&mut self, id: &str, status: WaitStatus) {
        let cgroup = create::container_cgroup(&self.sandbox, id);
        let oom_kills = self.cgroups.oom_kills(&cgroup);
        if self.sandbox.spec.pids != PidNamespace::Container {
            // Its other processes have not ended with the first one, as they do in a namespace of their own.
            self.cgroups.kill(&cgroup);
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.log.finish();
        let exit = exit_of(status, oom_kills > 0);
        container.state.finished = Some(exit);
        // With a full disk the connected agent still hears of it.
        write_json(&self.layout.container(id).exit(), &exit).ok();
        let message = Message::Exited {
            id: id.to_owned(),
            exit,
        };
        let interested: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(number, client)| client.cares_for(id).then_some(*number))
            .collect();
        for number in interested {
            self.tell(number, &message, Vec::new());
        }
    }
}

pub(super) fn exit_of(status: WaitStatus, oom: bool) -> Exit {
    let signal = status.terminating_signal();
    let code = signal
        .map(|signal| 128 + signal)
        .or(status.exit_status())
        .unwrap_or(137);
    Exit {
        code,
        signal,
        oom_killed: oom && code != 0,
        finished_at: Timestamp::now(),
        unknown: false,
    }
}
