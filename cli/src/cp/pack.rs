//! Local files into an archive.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;

/// Writes `from`, with all that is below it, as `name` into an archive. Links are stored as links.
pub(super) fn pack(from: &Path, name: &str, writer: impl Write) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(writer);
    archive.follow_symlinks(false);
    let what = std::fs::symlink_metadata(from).with_context(|| from.display().to_string())?;
    let added = match what.is_dir() {
        true => archive.append_dir_all(name, from),
        false => archive.append_path_with_name(from, name),
    };
    added.with_context(|| format!("cannot read {}", from.display()))?;
    archive.into_inner()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_stored_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        pack(folder.path(), "new", &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                format!("{path} {:?}", entry.header().entry_type())
            })
            .collect();
        names.sort();
        let names: Vec<String> = names.iter().map(|name| name.replace("/ ", " ")).collect();
        assert_eq!(
            names,
            [
                "new Directory",
                "new/link Symlink",
                "new/sub Directory",
                "new/sub/file Regular"
            ]
        );
    }
}
