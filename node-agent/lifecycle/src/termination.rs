//! The last words of a container: a file that it wrote, or the end of its log.

use k8s_openapi::api::core::v1::Container;

/// Bytes of a message, as in Kubernetes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of all messages of a pod.
const POD_BYTES_MAX: usize = 12 * 1024;
/// Lines of a log that stand in for a message.
pub const FALLBACK_LINES_MAX: usize = 80;
/// Bytes of a log that stand in for a message.
const LOG_BYTES_MAX: usize = 2048;

/// Where a container's last words come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePolicy {
    /// From its file only.
    File,
    /// From its log, if it failed and left the file empty.
    FallbackToLogsOnError,
}

/// The container's policy.
pub fn message_policy(container: &Container) -> MessagePolicy {
    match container.termination_message_policy.as_deref() {
        Some("FallbackToLogsOnError") => MessagePolicy::FallbackToLogsOnError,
        _ => MessagePolicy::File,
    }
}

/// The message in the first bytes of the file; none when it is empty.
pub fn file_message(content: &[u8]) -> Option<String> {
    let content = &content[..content.len().min(MESSAGE_BYTES_MAX)];
    (!content.is_empty()).then(|| String::from_utf8_lossy(content).into_owned())
}

/// The message that the end of a log makes; none when it is empty.
pub fn fallback_message(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(FALLBACK_LINES_MAX);
    let mut text: String = lines[first..].iter().map(|line| format!("{line}\n")).collect();
    if text.len() > LOG_BYTES_MAX {
        let start = (text.len() - LOG_BYTES_MAX..).find(|at| text.is_char_boundary(*at));
        text.drain(..start.unwrap_or(0));
    }
    (!text.is_empty()).then_some(text)
}

/// A message cut to its share of what a pod with so many containers may say.
pub(crate) fn cut(mut message: String, containers: usize) -> String {
    let limit = (POD_BYTES_MAX / containers.max(1)).min(MESSAGE_BYTES_MAX);
    if message.len() > limit {
        let end = (0..=limit).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_first_bytes() {
        assert_eq!(file_message(b""), None);
        assert_eq!(file_message(b"bye\n").as_deref(), Some("bye\n"));
        assert_eq!(file_message(&[b'x'; 5000]).unwrap().len(), 4096);
    }

    #[test]
    fn a_log_gives_its_last_lines() {
        let log: String = (0..100).map(|n| format!("{n}\n")).collect();
        let message = fallback_message(&log).unwrap();
        assert!(
            message.starts_with("20\n") && message.ends_with("99\n"),
            "{message}"
        );
        let long = format!("{}\n", "é".repeat(700)).repeat(3);
        let message = fallback_message(&long).unwrap();
        assert!(message.len() <= 2048 && message.ends_with("é\n"));
        assert_eq!(fallback_message(""), None);
    }

    #[test]
    fn the_containers_of_a_pod_share_what_may_be_said() {
        assert_eq!(cut("x".repeat(9000), 1).len(), 4096);
        assert_eq!(cut("x".repeat(9000), 6).len(), 2048);
        assert_eq!(cut("é".repeat(2000), 3), "é".repeat(2000));
        assert_eq!(cut("aé".to_owned(), 12 * 1024 / 2), "a");
    }
}
