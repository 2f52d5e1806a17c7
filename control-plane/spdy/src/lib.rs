//! SPDY/3.1 as Kubernetes' clients use it: streams in both directions over one upgraded connection.
//!
//! [`frame`] and [`headers`] are the pure codec; [`serve`] is the server's side of a connection, over anything that
//! reads and writes. It never opens streams itself, and knows nothing of what the streams carry.
//!
//! Flow control: every byte that was taken is granted again, as SPDY wants it. Kubernetes' own clients neither count
//! nor grant, so what is sent is held back by windows only once the peer has shown that it keeps them; TCP holds back
//! in any case.

mod connection;
mod dictionary;
pub mod frame;
pub mod headers;
mod window;

pub use connection::{ConnectionError, Incoming, NewStreams, Receiver, Reset, Sender, serve};
pub use headers::Headers;
