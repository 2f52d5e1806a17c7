//! Netfilter's netlink protocol: whole transactions in one message, dumps, and the expressions that rules are made of.
//!
//! Knows the wire format only; what tables, sets and rules mean is decided by whoever uses it.

mod expression;
mod netlink;
mod table;

pub use expression::{Dynamic, Expression, Verdict, Word};
pub use netlink::{Attributes, Messages, Netlink, NetlinkError, attributes};
pub use table::{Chain, Hook, Name, Set, Table};
