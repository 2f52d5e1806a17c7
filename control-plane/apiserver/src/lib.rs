//! The Kubernetes REST API over HTTP.
//!
//! [`ApiServer::handle`] takes any request that is not gRPC and answers it: authentication, authorization, discovery,
//! reads, watches, and writes through [`flotilla_resources`]. It knows neither TLS nor sockets, and decides nothing
//! that an object of some kind means; that is `flotilla_api`'s.

mod auth;
mod body;
mod call;
mod discovery;
mod exposition;
mod health;
mod inflight;
mod list;
mod logs;
mod members;
mod metrics;
mod negotiate;
mod openapi;
mod partial;
mod path;
mod protobuf;
mod proxy;
mod query;
mod render;
mod resource;
mod reviews;
mod selection;
mod server;
mod snapshots;
mod status;
mod streaming;
mod subresources;
mod watch;
mod write;

pub use auth::{ServiceAccountKeys, User};
pub use body::Body;
pub use inflight::InFlightLimits;
pub use logs::{LogOptions, PodLogs};
pub use metrics::NodeStats;
pub use server::{ApiServer, Options, Peer};
pub use snapshots::Snapshots;
pub use streaming::NodeStreams;
pub use subresources::issue_token;
