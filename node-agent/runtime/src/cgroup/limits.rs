//! Which limit is written to which file. Pure.

use crate::spec::Resources;

/// What to write: the controller, its file, the content.
pub(super) type Setting = (&'static str, &'static str, String);

/// Devices that every container may use: making nodes of any kind, then null, full, zero, random, urandom,
/// tty, console, ptmx and the pseudo terminals.
const ALLOWED_DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Limits that hold from the beginning.
pub(super) fn early(unified: bool, resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(match unified {
            true => ("cpu", "cpu.weight", weight(shares).to_string()),
            false => ("cpu", "cpu.shares", shares.to_string()),
        });
    }
    if let Some(bytes) = resources.memory_limit {
        let file = if unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        settings.push(("memory", file, bytes.to_string()));
    }
    settings
}

/// Limits that would slow down or break a container's creation, which happens in its cgroup.
pub(super) fn late(unified: bool, resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let period = resources.cpu_period.unwrap_or(100_000);
    match resources.cpu_quota {
        Some(quota) if unified => settings.push(("cpu", "cpu.max", format!("{quota} {period}"))),
        Some(quota) => {
            settings.push(("cpu", "cpu.cfs_period_us", period.to_string()));
            settings.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
        None => {}
    }
    if let Some(pids) = resources.pids {
        settings.push(("pids", "pids.max", pids.to_string()));
    }
    settings
}

/// The device rules of a container; v2 has no file for them.
pub(super) fn devices(unified: bool) -> Vec<Setting> {
    if unified {
        return Vec::new();
    }
    let allowed = ALLOWED_DEVICES
        .iter()
        .map(|rule| ("devices", "devices.allow", (*rule).to_owned()));
    std::iter::once(("devices", "devices.deny", "a".to_owned()))
        .chain(allowed)
        .collect()
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000), as runc converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: None,
            memory_limit: Some(1 << 20),
            pids: Some(10),
        };
        let text = |unified| {
            let settings = [early(unified, &resources), late(unified, &resources)].concat();
            settings
                .iter()
                .map(|(_, file, value)| format!("{file}={value}"))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            text(true),
            "cpu.weight=39; memory.max=1048576; cpu.max=50000 100000; pids.max=10"
        );
        assert_eq!(
            text(false),
            "cpu.shares=1024; memory.limit_in_bytes=1048576; cpu.cfs_period_us=100000; \
             cpu.cfs_quota_us=50000; pids.max=10"
        );
    }
}
