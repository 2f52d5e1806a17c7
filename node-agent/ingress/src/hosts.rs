//! Something per host name, found as the Ingress API finds hosts. Pure.

use std::collections::HashMap;

/// Entries for hosts, for wildcards such as `*.example.com`, and one for every other host.
#[derive(Debug)]
pub(crate) struct Hosts<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the star's label.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T> Hosts<T> {
    /// The entry of a host, a wildcard, or (by the empty name) of all other hosts; made if need be.
    pub(crate) fn entry_or(&mut self, host: &str, make: impl FnOnce() -> T) -> &mut T {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            _ if host.is_empty() => self.any.get_or_insert_with(make),
            Some(rest) => self.wildcard.entry(rest.into()).or_insert_with(make),
            None => self.exact.entry(host.into()).or_insert_with(make),
        }
    }

    /// The entry for a host in lower case: its own, else that of the wildcard for its last label but one, else the one
    /// for all others.
    pub(crate) fn get(&self, host: &str) -> Option<&T> {
        self.named(host).or(self.any.as_ref())
    }

    /// The same without the one for all others.
    pub(crate) fn named(&self, host: &str) -> Option<&T> {
        let wildcard = || {
            let (first, rest) = host.split_once('.')?;
            self.wildcard.get(rest).filter(|_| !first.is_empty())
        };
        self.exact.get(host).or_else(wildcard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_exactly_then_by_wildcard_then_as_any_other() {
        let mut hosts = Hosts::default();
        for host in ["a.example.com", "*.Example.com", "*.b.example.com", ""] {
            hosts.entry_or(host, || host);
        }
        for (host, expected) in [
            ("a.example.com", "a.example.com"),
            ("c.example.com", "*.Example.com"),
            ("c.b.example.com", "*.b.example.com"),
            // A star stands for one label, and for one at least.
            ("d.c.example.com", ""),
            ("example.com", ""),
            (".example.com", ""),
            ("localhost", ""),
            ("", ""),
        ] {
            assert_eq!(hosts.get(host), Some(&expected), "{host}");
        }
        assert_eq!(hosts.named("localhost"), None);
    }
}
