//! Hiding pods behind their node.

use super::*;

/// The table is what the nft program would have made of these words, so that an operator can read it.
#[test]
fn the_rules_that_hide_pods_can_be_read() {
    let node = Node::new("192.168.7.1", "10.42.1.0/24");
    let listed = node.namespace.run(|| {
        let words = ["list", "chain", "ip", "flotilla_flt0", "postrouting"];
        let listed = std::process::Command::new("nft").args(words).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    });
    assert!(
        listed.contains("type nat hook postrouting priority srcnat; policy accept;"),
        "{listed}"
    );
    assert!(
        listed.contains("ip saddr 10.42.1.0/24 ip daddr != 10.42.0.0/16 oifname != \"flt0\" masquerade"),
        "{listed}"
    );
}
