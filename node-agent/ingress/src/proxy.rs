//! The proxy of a node: open while there is any ingress to serve, closed otherwise.
//!
//! Without an ingress of our classes nothing listens, no TLS is set up and no connection is kept: the ports stay free
//! for whoever wants them, and the proxy costs next to nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use flotilla_report::report;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balancer::Endpoints;
use crate::certificates::server_config;
use crate::connection::Service;
use crate::forward::Forwarder;
use crate::headers::Scheme;
use crate::limits::Limits;
use crate::listen::{Listener, Listening};
use crate::live::{Live, Maker};
use crate::rules::SharedRules;

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The port for plain requests; none: not at all. 0 takes any that is free.
    pub http_port: Option<u16>,
    /// The port for TLS.
    pub https_port: Option<u16>,
}

/// The proxy.
pub struct Proxy {
    options: Options,
    limits: Limits,
    rules: SharedRules,
    endpoints: Arc<dyn Endpoints>,
    listening: watch::Sender<Listening>,
    tracker: TaskTracker,
}

/// What is there while there are ingresses.
struct Serving {
    live: Arc<ArcSwap<Live>>,
    stopping: CancellationToken,
    listeners: TaskTracker,
}

impl Proxy {
    /// Opens nothing yet. Tasks of connections go to the tracker.
    pub fn new(
        options: Options,
        rules: SharedRules,
        endpoints: Arc<dyn Endpoints>,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            options,
            limits: Limits::default(),
            rules,
            endpoints,
            listening: watch::Sender::default(),
            tracker,
        }
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The ports that are open at the moment.
    pub fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.subscribe()
    }

    /// Serves until shutdown. Requests under way then get a few seconds to end.
    pub async fn run(self, shutdown: CancellationToken) {
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.rules.synced() => {}
        }
        let mut maker = Maker::new(self.endpoints.clone());
        let mut serving: Option<Serving> = None;
        loop {
            let live = maker.make(&self.rules.known());
            serving = match (serving, live) {
                (Some(serving), Some(live)) => {
                    serving.live.store(Arc::new(live));
                    Some(serving)
                }
                (None, Some(live)) => Some(self.open(live, &shutdown)),
                (Some(serving), None) => {
                    serving.close().await;
                    None
                }
                (None, None) => None,
            };
            // Both arms only wait; a change that comes meanwhile is remembered.
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.rules.changed() => {}
            }
        }
        if let Some(serving) = serving {
            serving.close().await;
        }
    }

    fn open(&self, live: Live, shutdown: &CancellationToken) -> Serving {
        let live = Arc::new(ArcSwap::from_pointee(live));
        let stopping = shutdown.child_token();
        let listeners = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let forwarder = Forwarder::new(live.clone(), self.listening.subscribe(), self.tracker.clone());
        let start = |port: u16, scheme: Scheme, tls| {
            let service = Service {
                forwarder: forwarder.clone(),
                tracker: self.tracker.clone(),
                tls,
            };
            let listener = Listener {
                port,
                scheme,
                limits: self.limits,
                service,
                slots: slots.clone(),
                listening: self.listening.clone(),
                tracker: self.tracker.clone(),
            };
            listeners.spawn(listener.run(stopping.clone()));
        };
        if let Some(port) = self.options.http_port {
            start(port, Scheme::Http, None);
        }
        if let Some(port) = self.options.https_port {
            match server_config(live.clone()) {
                Ok(config) => start(port, Scheme::Https, Some(config)),
                Err(error) => tracing::error!(error = report(&error), "Ingresses are not served over HTTPS"),
            }
        }
        Serving {
            live,
            stopping,
            listeners,
        }
    }
}

impl Serving {
    /// Frees the ports; connections drain by themselves.
    async fn close(self) {
        self.stopping.cancel();
        self.listeners.close();
        self.listeners.wait().await;
    }
}
