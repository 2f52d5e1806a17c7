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
    /// The lines that are there without tests: all but the items that `#[cfg(test)]` marks at the margin.
    pub fn code(&self) -> impl Iterator<Item = &str> {
        let mut at = Place::Code;
        self.text.lines().filter(move |line| {
            let was = at;
            at = at.after(line);
            was == Place::Code && at == Place::Code
        })
    }

    /// Whether the whole file is test code. What tests run in containers (`tests/support`) is not.
    pub fn is_test(&self) -> bool {
        self.path
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
            || self.path.ends_with("tests.rs")
    }
}

/// Where a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    /// After the mark, before the item or among its attributes.
    Marked,
    /// In an item of several lines that ends with a brace at the margin.
    Item,
    /// In the module that closes the file. What its strings hold may look like anything.
    Tests,
}

impl Place {
    /// Where the line is when the one before it was here; the last line of a marked item still counts to it.
    fn after(self, line: &str) -> Self {
        match self {
            Place::Code if line.starts_with("#[cfg(test)]") => Place::Marked,
            Place::Marked if line.ends_with(';') => Place::Code,
            Place::Marked if line.starts_with("mod ") && line.ends_with('{') => Place::Tests,
            Place::Marked if line.ends_with('{') => Place::Item,
            Place::Item if line == "}" => Place::Code,
            same => same,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_there_without_tests() {
        let text = "mod a;\n#[cfg(test)]\nmod fake;\nfn b() {\n}\n#[cfg(test)]\nfn c() {\n    d;\n}\nfn e() {}\n\
                    #[cfg(test)]\n#[other(f)]\nmod tests {\n}\n}\n";
        let source = Source {
            path: PathBuf::from("a.rs"),
            text: text.to_owned(),
        };
        let code: Vec<&str> = source.code().collect();
        assert_eq!(code, ["mod a;", "fn b() {", "}", "fn e() {}"]);
    }
}
