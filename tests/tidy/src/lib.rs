//! Reads the tree as text, for the checks in `tests/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One source file of the tree.
pub struct Source {
    /// Its path, relative to the root of the tree.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Source {
    /// The lines before the tests that close the file.
    pub fn code(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
    }

    /// Whether the whole file is test code. What tests run in containers (`tests/support`) is not.
    pub fn is_test(&self) -> bool {
        self.path
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
            || self.path.ends_with("tests.rs")
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate is two folders deep")
        .to_owned()
}

/// All files of the tree with one of these endings, build output left out.
pub fn sources(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), endings, &mut found);
    found
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).expect("the folders of the tree can be read");
    for entry in entries.map(|entry| entry.expect("the entries of a folder can be read")) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let path = path
                .strip_prefix(root())
                .expect("it is below the root")
                .to_owned();
            found.push(Source { path, text });
        }
    }
}
