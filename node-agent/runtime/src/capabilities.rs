//! Which capabilities a container gets.

use crate::spec::Capabilities;

/// All capabilities by number, as Linux 5.9 and later have them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// containerd's defaults.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities that a container gets of those in `available`, both bit masks by number.
///
/// `devices_are_filtered` tells whether the cgroup refuses device nodes; without that, `MKNOD` is not given
/// by default.
pub(crate) fn granted(
    wanted: &Capabilities,
    available: u64,
    devices_are_filtered: bool,
) -> Result<u64, String> {
    let add = wanted
        .add
        .iter()
        .map(|name| parse(name))
        .collect::<Result<Vec<_>, _>>()?;
    let drop = wanted
        .drop
        .iter()
        .map(|name| parse(name))
        .collect::<Result<Vec<_>, _>>()?;
    let contains = |list: &[Choice], name: &str| {
        list.iter()
            .any(|choice| matches!(choice, Choice::All) || matches!(choice, Choice::One(one) if *one == name))
    };
    let granted = NAMES.iter().enumerate().filter(|(_, name)| {
        let default = DEFAULTS.contains(name) && (devices_are_filtered || **name != "MKNOD");
        let dropped = contains(&drop, name);
        // A name that is both added and dropped is added, unless only "ALL" adds it: as containerd has it.
        let named = add
            .iter()
            .any(|choice| matches!(choice, Choice::One(one) if one == *name));
        named || ((default || contains(&add, name)) && !dropped)
    });
    Ok(granted.fold(0, |mask, (number, _)| mask | 1 << number) & available)
}

/// The number of a capability, by its name without `CAP_`.
pub(crate) fn number_of(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// What a container gets that asks for nothing.
pub(crate) fn usual(available: u64, devices_are_filtered: bool) -> u64 {
    granted(&Capabilities::default(), available, devices_are_filtered).unwrap_or(0)
}

/// The full names (`CAP_…`) of a bit mask.
pub(crate) fn names(mask: u64) -> Vec<String> {
    let held = NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| mask >> number & 1 == 1);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

enum Choice {
    All,
    One(&'static str),
}

fn parse(name: &str) -> Result<Choice, String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(Choice::All);
    }
    NAMES
        .into_iter()
        .find(|known| *known == bare)
        .map(Choice::One)
        .ok_or_else(|| format!("unknown capability {name:?}"))
}

/// The capabilities that this process may pass on.
pub(crate) fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted_names(add: &[&str], drop: &[&str], available: u64) -> String {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Capabilities {
            add: list(add),
            drop: list(drop),
        };
        names(granted(&wanted, available, true).unwrap())
            .join(" ")
            .replace("CAP_", "")
    }

    #[test]
    fn dropping_all_leaves_what_is_added() {
        assert_eq!(
            granted_names(&["NET_BIND_SERVICE"], &["ALL"], u64::MAX),
            "NET_BIND_SERVICE"
        );
        assert_eq!(granted_names(&[], &["ALL"], u64::MAX), "");
    }

    #[test]
    fn single_names_change_the_defaults() {
        let names = granted_names(&["CAP_SYS_TIME"], &["chown"], u64::MAX);
        assert!(names.contains("SYS_TIME") && !names.contains("CHOWN") && names.contains("KILL"));
    }

    #[test]
    fn nothing_is_granted_that_the_node_lacks() {
        assert_eq!(granted_names(&["ALL"], &[], 0b11), "CHOWN DAC_OVERRIDE");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let wanted = Capabilities {
            add: vec!["SYS_COFFEE".into()],
            drop: vec![],
        };
        assert_eq!(
            granted(&wanted, 0, true),
            Err("unknown capability \"SYS_COFFEE\"".into())
        );
    }
}
