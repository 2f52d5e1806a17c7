//! How much came to and went from each pod, as the kernel counts it on the pods' links.

use std::collections::BTreeMap;

/// Bytes and errors of a pod's link, as the pod sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What the pod received.
    pub received_bytes: u64,
    /// What it should have received.
    pub receive_errors: u64,
    /// What the pod sent.
    pub sent_bytes: u64,
    /// What it could not send.
    pub send_errors: u64,
}

/// The counters of all links of this network namespace, by name.
pub(crate) fn by_link() -> BTreeMap<String, Traffic> {
    std::fs::read_to_string("/proc/self/net/dev")
        .map(|text| understand(&text))
        .unwrap_or_default()
}

/// Two lines of headings, then a line for each link: name, eight numbers received, eight sent. What the node's end of
/// a link receives is what the pod has sent.
fn understand(text: &str) -> BTreeMap<String, Traffic> {
    let link = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        let traffic = Traffic {
            received_bytes: at(8),
            receive_errors: at(10),
            sent_bytes: at(0),
            send_errors: at(2),
        };
        Some((name.trim().to_owned(), traffic))
    };
    text.lines().skip(2).filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_nodes_end_receives_the_pod_has_sent() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\npod1: 10 1 2 0 0 0 0 0 30 3 4 0 0 0 0 0\n";
        let found = understand(text);
        let expected = Traffic {
            received_bytes: 30,
            receive_errors: 4,
            sent_bytes: 10,
            send_errors: 2,
        };
        assert_eq!(found["pod1"], expected);
        assert_eq!(found.len(), 2);
    }
}
