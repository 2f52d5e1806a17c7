//! Hides pods behind their node when they talk to what is outside the cluster, by one nftables table.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Once;

use crate::NetworkError;
use crate::cidr::Cidr;

static ABSENT: Once = Once::new();

/// Puts the table in place, in one transaction. Without the `nft` program pods work, but only inside the cluster.
pub(crate) fn install(bridge: &str, pods: Cidr, cluster: Cidr) -> Result<(), NetworkError> {
    let table = table(bridge);
    run(&format!(
        "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {pods} ip daddr != {cluster} oifname != \"{bridge}\" masquerade\n  }}\n}}\n"
    ))
}

/// Removes the table if it is there.
pub(crate) fn remove(bridge: &str) -> Result<(), NetworkError> {
    let table = table(bridge);
    run(&format!("table ip {table}\ndelete table ip {table}\n"))
}

fn table(bridge: &str) -> String {
    let word = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    format!("flotilla_{}", bridge.chars().map(word).collect::<String>())
}

fn run(script: &str) -> Result<(), NetworkError> {
    let failed = |message: String| NetworkError::Masquerade { message };
    let started = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut nft = match started {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ABSENT.call_once(|| {
                tracing::warn!(
                    "the nft program is not installed: pods do not reach addresses outside the cluster"
                );
            });
            return Ok(());
        }
        started => started.map_err(|error| failed(error.to_string()))?,
    };
    if let Some(mut stdin) = nft.stdin.take() {
        // A program that ended early says why on its standard error.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = nft
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
