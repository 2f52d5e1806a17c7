//! What a container leaves behind for its status: the file for its last words, or the end of its log.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flotilla_lifecycle::{
    FALLBACK_LINES_MAX, MessagePolicy, fallback_message, file_message, find_container, message_policy,
};
use flotilla_report::report;
use flotilla_runtime::logs::{LogReader, ReadLogError, ReadOptions};
use flotilla_runtime::{ContainerState, Mount};
use k8s_openapi::api::core::v1::Container;
use tokio_util::sync::CancellationToken;

use super::Worker;

/// More than any message may have.
const READ_BYTES_MAX: u64 = 4096;

impl Worker {
    /// Makes the file for a new attempt's last words, and says where it is mounted. The container's user is not known
    /// to the node, so anybody may write it; nobody but root reaches it from the node, for its folder is root's own.
    pub(super) fn last_words_mount(&self, container: &Container, id: &str) -> io::Result<Option<Mount>> {
        let path = container
            .termination_message_path
            .as_deref()
            .filter(|path| !path.is_empty());
        let Some(path) = path else { return Ok(None) };
        let file = self.last_words_file(id);
        let folder = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        // The one before was read when its container ended.
        for old in fs::read_dir(folder)?.flatten() {
            if is_attempt_of(&old.file_name().to_string_lossy(), &container.name) {
                fs::remove_file(old.path())?;
            }
        }
        let mut new = fs::OpenOptions::new();
        let made = new.write(true).create_new(true).mode(0o666).open(&file)?;
        // Whatever the agent's umask.
        made.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(Some(Mount {
            source: file,
            destination: PathBuf::from(path),
            ..Mount::default()
        }))
    }

    fn last_words_file(&self, id: &str) -> PathBuf {
        let folder = self.surroundings.files_dir.join(&self.uid);
        folder.join("termination").join(id)
    }

    /// The last words of an attempt that has ended.
    pub(super) async fn last_words(&self, ended: &ContainerState, code: i32) -> Option<String> {
        let container = find_container(&self.checkpoint.pod, &ended.name)?;
        if let Some(message) = self.written(&ended.id) {
            return Some(message);
        }
        if code == 0 || message_policy(&container) != MessagePolicy::FallbackToLogsOnError {
            return None;
        }
        match end_of_log(ended.log_path.clone()).await {
            Ok(log) => fallback_message(&log),
            Err(error) => Some(format!("the container's log cannot be read: {}", report(&error))),
        }
    }

    fn written(&self, id: &str) -> Option<String> {
        let read = || {
            let mut content = Vec::new();
            // The container may have put no other file in its place: what it sees is a mount.
            let file = fs::File::open(self.last_words_file(id))?;
            file.take(READ_BYTES_MAX).read_to_end(&mut content)?;
            io::Result::Ok(content)
        };
        match read() {
            Ok(content) => file_message(&content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("the last words cannot be read: {}", report(&error))),
        }
    }
}

/// Whether `id` is `<container>-<attempt>`.
fn is_attempt_of(id: &str, container: &str) -> bool {
    let attempt = id.strip_prefix(container).and_then(|rest| rest.strip_prefix('-'));
    attempt.is_some_and(|attempt| attempt.bytes().all(|byte| byte.is_ascii_digit()))
}

async fn end_of_log(path: PathBuf) -> Result<String, ReadLogError> {
    let options = ReadOptions {
        tail_lines: Some(FALLBACK_LINES_MAX as u64),
        ..ReadOptions::default()
    };
    let mut reader = LogReader::open(path, options, CancellationToken::new()).await?;
    let mut log = Vec::new();
    while let Some(lines) = reader.next().await? {
        log.extend_from_slice(&lines);
    }
    Ok(String::from_utf8_lossy(&log).into_owned())
}

#[cfg(test)]
mod tests {
    use super::is_attempt_of;

    #[test]
    fn attempts_are_told_from_containers_with_longer_names() {
        assert!(is_attempt_of("web-12", "web"));
        assert!(!is_attempt_of("web-2-0", "web"));
        assert!(!is_attempt_of("webs-0", "web"));
    }
}
