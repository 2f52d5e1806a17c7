//! Files and folders of the node, and whether they are what the pod takes them for.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What a `hostPath` volume says that its path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// Anything; made as a folder where it is missing, as container runtimes do.
    Unchecked,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

impl PathKind {
    pub(crate) fn parse(text: &str) -> Result<PathKind, String> {
        Ok(match text {
            "" => PathKind::Unchecked,
            "DirectoryOrCreate" => PathKind::DirectoryOrCreate,
            "Directory" => PathKind::Directory,
            "FileOrCreate" => PathKind::FileOrCreate,
            "File" => PathKind::File,
            "Socket" => PathKind::Socket,
            "CharDevice" => PathKind::CharDevice,
            "BlockDevice" => PathKind::BlockDevice,
            other => return Err(format!("{other} is an invalid volume type")),
        })
    }

    /// What the path must be.
    fn wants(self) -> &'static str {
        match self {
            PathKind::Unchecked => "anything",
            PathKind::DirectoryOrCreate | PathKind::Directory => "a directory",
            PathKind::FileOrCreate | PathKind::File => "a file",
            PathKind::Socket => "a socket file",
            PathKind::CharDevice => "a character device",
            PathKind::BlockDevice => "a block device",
        }
    }

    fn accepts(self, found: FileType) -> bool {
        match self {
            PathKind::Unchecked => true,
            PathKind::DirectoryOrCreate | PathKind::Directory => found.is_dir(),
            PathKind::FileOrCreate | PathKind::File => found.is_file(),
            PathKind::Socket => found.is_socket(),
            PathKind::CharDevice => found.is_char_device(),
            PathKind::BlockDevice => found.is_block_device(),
        }
    }
}

/// Makes the path where it may be made, and checks it.
pub(crate) fn prepare(path: &Path, kind: PathKind) -> Result<(), String> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path, kind).map_err(|error| format!("cannot create hostPath {}: {error}", path.display()))?
        }
        found => Some(
            found
                .map_err(|error| format!("hostPath type check failed: {}: {error}", path.display()))?
                .file_type(),
        ),
    };
    match found {
        Some(found) if kind.accepts(found) => Ok(()),
        _ => Err(format!(
            "hostPath type check failed: {} is not {}",
            path.display(),
            kind.wants()
        )),
    }
}

fn make(path: &Path, kind: PathKind) -> io::Result<Option<FileType>> {
    match kind {
        PathKind::Unchecked | PathKind::DirectoryOrCreate => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        }
        PathKind::FileOrCreate => {
            // Not its folder: kubelet does not make that either.
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).mode(0o644).open(path)?;
        }
        _ => return Ok(None),
    }
    Ok(Some(fs::metadata(path)?.file_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_and_checked_as_their_types_say() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        fs::create_dir(folder.path().join("dir")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let check = |name: &str, kind: &str, expected: Result<(), &str>| {
            let path = folder.path().join(name);
            let found = PathKind::parse(kind).and_then(|kind| prepare(&path, kind));
            let shown =
                found.map_err(|problem| problem.replace(&format!("{}/", folder.path().display()), ""));
            assert_eq!(shown, expected.map_err(str::to_owned), "{name} as {kind}");
        };
        check("file", "", Ok(()));
        check("file", "File", Ok(()));
        check("dir", "Directory", Ok(()));
        check("socket", "Socket", Ok(()));
        check("../../dev/null", "CharDevice", Ok(()));
        let failed = |what: &'static str| Err(what);
        check(
            "file",
            "Directory",
            failed("hostPath type check failed: file is not a directory"),
        );
        check(
            "dir",
            "File",
            failed("hostPath type check failed: dir is not a file"),
        );
        check(
            "none",
            "Socket",
            failed("hostPath type check failed: none is not a socket file"),
        );
        check(
            "none",
            "Directory",
            failed("hostPath type check failed: none is not a directory"),
        );
        check(
            "file",
            "BlockDevice",
            failed("hostPath type check failed: file is not a block device"),
        );
        check("file", "Nonsense", failed("Nonsense is an invalid volume type"));
        check("made/below", "DirectoryOrCreate", Ok(()));
        check("made/file", "FileOrCreate", Ok(()));
        check("other/below", "", Ok(()));
        assert!(folder.path().join("made/below").is_dir());
        assert!(folder.path().join("made/file").is_file());
        assert!(folder.path().join("other/below").is_dir());
        check(
            "no/file",
            "FileOrCreate",
            failed("cannot create hostPath no/file: No such file or directory (os error 2)"),
        );
    }
}
