//! Static pods: what the files of a folder say runs here, with or without a control plane.
//!
//! The folder is looked at when it changes and every few seconds in any case. A file that cannot be understood keeps
//! what it last said; a folder that is not there says nothing.

mod manifest;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_lifecycle::Notice;
use flotilla_report::report;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::manifest::read_folder;
use self::plan::{Step, plan};
use self::watch::FolderWatch;
use crate::outbox::Outbox;
use crate::pods::Pods;

/// The folder of static pods in an agent's data, if no other is given; k3s has the same.
pub(crate) const FOLDER: &str = "pod-manifests";
/// Kubelet's `--file-check-frequency`.
const LOOK: Duration = Duration::from_secs(20);
/// Files often come in several steps; they are read once nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(100);

/// Runs what the files of a folder say.
pub(crate) struct StaticPods {
    pub(crate) folder: PathBuf,
    pub(crate) node_name: String,
    pub(crate) pods: Arc<Pods>,
    pub(crate) outbox: Arc<Outbox>,
}

impl StaticPods {
    /// Looks at the folder until shutdown; the pods run on.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut watch = FolderWatch::new(self.folder.clone());
        let mut told = BTreeMap::new();
        loop {
            watch.renew();
            self.look(&mut told);
            // Every arm only waits. The shutdown comes first, because workers end by it as well and are not to be
            // replaced then.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.pods.static_ended() => {}
                () = watch.changed_and_quiet(QUIET) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&self, told: &mut BTreeMap<String, String>) {
        match read_folder(&self.folder, &self.node_name, Timestamp::now()) {
            Ok(found) => {
                let planned = plan(found, &self.pods.statics());
                self.tell(planned.problems, told);
                for step in planned.steps {
                    match step {
                        Step::Run(pod) => self.pods.run_static(*pod),
                        Step::End(uid) => self.pods.end_static(&uid),
                    }
                }
            }
            Err(error) => {
                let folder = self.folder.display().to_string();
                let problem = format!("the folder of static pods {folder}: {}", report(&error));
                self.tell(BTreeMap::from([(folder, problem)]), told);
            }
        }
        self.pods.settle();
    }

    /// Says what is wrong with which file, once as long as it stays the same.
    fn tell(&self, problems: BTreeMap<String, String>, told: &mut BTreeMap<String, String>) {
        for (file, problem) in &problems {
            if told.get(file) != Some(problem) {
                tracing::warn!(file, problem, "a static pod's file is not followed");
                let notice = Notice::of_pod(true, "InvalidStaticPod", problem.clone());
                self.outbox.node_event(notice);
            }
        }
        *told = problems;
    }
}
