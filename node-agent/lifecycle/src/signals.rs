//! Signals by name.

use k8s_openapi::api::core::v1::Container;

const SIGTERM: i32 = 15;

/// Linux's signals 1 to 31 in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal that programs may use.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() {
            0
        } else {
            offset.strip_prefix('+')?.parse::<i32>().ok()?
        };
        return (0..=RTMAX - RTMIN).contains(&offset).then_some(RTMIN + offset);
    }
    let index = NAMES.iter().position(|name| *name == short)?;
    i32::try_from(index + 1).ok()
}

/// The signal that asks a container to stop: the pod's word, then the image's, then SIGTERM.
pub(crate) fn stop_signal(container: &Container, of_image: Option<&str>) -> i32 {
    let of_pod = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    of_pod
        .and_then(signal_number)
        .or_else(|| of_image.and_then(signal_number))
        .unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let cases = [
            "SIGTERM",
            "quit",
            "9",
            "SIGRTMIN+3",
            "SYS",
            "SIGNONE",
            "0",
            "65",
            "RTMIN+99",
        ];
        let numbers = cases.map(signal_number);
        assert_eq!(
            numbers,
            [
                Some(15),
                Some(3),
                Some(9),
                Some(37),
                Some(31),
                None,
                None,
                None,
                None
            ]
        );
    }
}
