//! The reverse proxy of a node: requests from outside, by host and path, to the endpoints of services.
//!
//! Is told of ingresses, their classes and their certificates ([`SharedRules`]), makes one table of routes of them
//! ([`table`]), listens while there is any ingress of our classes ([`proxy`]), and forwards each request to one of the
//! service's endpoints ([`forward`]), dialling it directly. Never sees a secret that no ingress names, and never
//! buffers a body.
//!
//! Bounds, each beside its reason: 4,096 connections at once, 30 s for a request's head and between two requests, ten
//! minutes without a byte on a connection, 60 s for an endpoint's answer to begin, 4 s to drain ([`Limits`]); 10 s for a
//! TLS handshake ([`connection`]); 2 s to connect to an endpoint, three endpoints tried ([`forward`]).

mod activity;
mod answer;
mod balancer;
mod certificates;
mod connection;
mod declared;
mod forward;
mod headers;
mod hosts;
mod limits;
mod listen;
mod live;
mod paths;
mod proxy;
mod rules;
mod table;
mod tunnel;

pub use balancer::{Endpoints, Reachable};
pub use declared::Port;
pub use limits::Limits;
pub use listen::Listening;
pub use proxy::{Options, Proxy};
pub use rules::SharedRules;
