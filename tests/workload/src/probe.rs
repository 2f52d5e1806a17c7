//! Single requests to one server, one after the other.

use std::io;

use flotilla_history::{Action, Outcome, Require};
use http::Method;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Server};
use crate::api;
use crate::caller::Caller;
use crate::shared::OPERATION_LIMIT;

/// Asks one server; blocks.
pub struct Probe {
    runtime: Runtime,
    caller: Caller,
}

impl Probe {
    /// Connects at the first request.
    pub fn new(access: Access, server: Server) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let caller = Caller::new(access, server, TaskTracker::new());
        Ok(Self { runtime, caller })
    }

    /// Code and text of what the server answers, if it does within two seconds.
    pub fn get(&mut self, path: &str) -> Option<(u16, String)> {
        let asked = self.caller.ask(Method::GET, path, String::new(), OPERATION_LIMIT);
        let answer = self.runtime.block_on(asked).ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Some((answer.code.as_u16(), text))
    }

    /// Creates a ConfigMap; true when that was acknowledged within two seconds.
    pub fn create(&mut self, namespace: &str, name: &str) -> bool {
        let action = Action::Put {
            key: name.to_owned(),
            value: name.to_owned(),
            require: Require::Absent,
        };
        let call = api::call(namespace, &action, "");
        let asked = self
            .caller
            .ask(call.method, &call.path, call.body, OPERATION_LIMIT);
        let answer = self.runtime.block_on(asked);
        matches!(api::outcome(&action, answer), Outcome::Written(_))
    }
}
