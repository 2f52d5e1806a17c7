//! Which limit is written to which file. Pure.

use std::borrow::Cow;

use crate::spec::Resources;

/// What to write: the controller, its file, the content.
pub(super) type Setting = (&'static str, Cow<'static, str>, String);

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

/// Without a quota or a limit.
const PERIOD_MICROSECONDS: u64 = 100_000;

fn setting(controller: &'static str, file: &'static str, value: &dyn ToString) -> Setting {
    (controller, Cow::Borrowed(file), value.to_string())
}

/// Limits that hold from the beginning.
pub(super) fn early(unified: bool, resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(match unified {
            true => setting("cpu", "cpu.weight", &weight(shares)),
            false => setting("cpu", "cpu.shares", &shares),
        });
    }
    settings.extend(resources.memory_limit.map(|bytes| memory(unified, &bytes)));
    for (size, bytes) in &resources.huge_pages {
        let file = match unified {
            true => format!("hugetlb.{size}.max"),
            false => format!("hugetlb.{size}.limit_in_bytes"),
        };
        settings.push(("hugetlb", file.into(), bytes.to_string()));
    }
    settings
}

fn memory(unified: bool, limit: &dyn ToString) -> Setting {
    let file = if unified {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    setting("memory", file, limit)
}

/// Limits that would slow down or break a container's creation, which happens in its cgroup.
pub(super) fn late(unified: bool, resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let period = resources.cpu_period.unwrap_or(PERIOD_MICROSECONDS);
    match resources.cpu_quota {
        Some(quota) if unified => settings.push(setting("cpu", "cpu.max", &format!("{quota} {period}"))),
        Some(quota) => {
            settings.push(setting("cpu", "cpu.cfs_period_us", &period));
            settings.push(setting("cpu", "cpu.cfs_quota_us", &quota));
        }
        None => {}
    }
    settings.extend(resources.pids.map(|pids| setting("pids", "pids.max", &pids)));
    settings
}

/// All limits of a cgroup that has others so far: what is not limited any more is set free.
pub(super) fn update(unified: bool, resources: &Resources) -> Vec<Setting> {
    let mut settings = early(unified, resources);
    settings.extend(late(unified, resources));
    if resources.cpu_quota.is_none() {
        settings.push(match unified {
            true => setting("cpu", "cpu.max", &format!("max {PERIOD_MICROSECONDS}")),
            false => setting("cpu", "cpu.cfs_quota_us", &-1),
        });
    }
    if resources.memory_limit.is_none() {
        settings.push(memory(unified, if unified { &"max" } else { &-1 }));
    }
    if resources.pids.is_none() {
        settings.push(setting("pids", "pids.max", &"max"));
    }
    settings
}

/// The device rules of a container; v2 has no file for them.
pub(super) fn devices(unified: bool, all: bool) -> Vec<Setting> {
    if unified {
        return Vec::new();
    }
    if all {
        return vec![setting("devices", "devices.allow", &"a")];
    }
    let allowed = ALLOWED_DEVICES
        .iter()
        .map(|rule| setting("devices", "devices.allow", rule));
    std::iter::once(setting("devices", "devices.deny", &"a"))
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

    fn text(settings: &[Setting]) -> String {
        let words = settings.iter().map(|(_, file, value)| format!("{file}={value}"));
        words.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: None,
            memory_limit: Some(1 << 20),
            pids: Some(10),
            huge_pages: [("2MB".to_owned(), 4 << 20)].into(),
        };
        let all = |unified| text(&[early(unified, &resources), late(unified, &resources)].concat());
        assert_eq!(
            all(true),
            "cpu.weight=39; memory.max=1048576; hugetlb.2MB.max=4194304; cpu.max=50000 100000; pids.max=10"
        );
        assert_eq!(
            all(false),
            "cpu.shares=1024; memory.limit_in_bytes=1048576; hugetlb.2MB.limit_in_bytes=4194304; \
             cpu.cfs_period_us=100000; cpu.cfs_quota_us=50000; pids.max=10"
        );
    }

    #[test]
    fn an_update_takes_away_what_is_not_limited_any_more() {
        let resources = Resources {
            cpu_shares: Some(2),
            ..Resources::default()
        };
        assert_eq!(
            text(&update(true, &resources)),
            "cpu.weight=1; cpu.max=max 100000; memory.max=max; pids.max=max"
        );
        assert_eq!(
            text(&update(false, &resources)),
            "cpu.shares=2; cpu.cfs_quota_us=-1; memory.limit_in_bytes=-1; pids.max=max"
        );
    }
}
