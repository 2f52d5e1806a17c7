//! Users and groups by name, looked up in the files of an image.

use std::io::{self, Read};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, statat};

use crate::Image;
use crate::unpack::{is_whiteout, open_in_layer};

/// No honest user database is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Who a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups that `/etc/group` lists for the user.
    pub additional_gids: Vec<u32>,
}

/// Why a user of an image could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ResolveUserError {
    /// No line of `/etc/passwd` has this name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// No line of `/etc/group` has this name.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A file of the image could not be read.
    #[error("cannot read /{path} of the image")]
    Read {
        /// Path in the image.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Turns `user[:group]`, each a name or a number, into ids by the image's `/etc/passwd` and `/etc/group`.
pub fn resolve_user(image: &Image, user: &str) -> Result<User, ResolveUserError> {
    if user.is_empty() {
        return Ok(User::default());
    }
    let read =
        |path| read_file(&image.layers, path).map_err(|source| ResolveUserError::Read { path, source });
    resolve(user, &read("etc/passwd")?, &read("etc/group")?)
}

fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, ResolveUserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let number = user.parse::<u32>().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.first() == Some(&user)
                || number.is_some() && fields.get(2).and_then(|uid| uid.parse().ok()) == number
        });
    let field = |at: usize| {
        line.as_ref()
            .and_then(|fields| fields.get(at)?.parse::<u32>().ok())
    };
    let uid = field(2)
        .or(number)
        .ok_or_else(|| ResolveUserError::UnknownUser(user.to_owned()))?;
    if let Some(wanted) = wanted_group {
        let gid = group_id(wanted, group).ok_or_else(|| ResolveUserError::UnknownGroup(wanted.to_owned()))?;
        return Ok(User {
            uid,
            gid,
            additional_gids: Vec::new(),
        });
    }
    let name = line.as_ref().and_then(|fields| fields.first().copied());
    Ok(User {
        uid,
        gid: field(3).unwrap_or(0),
        additional_gids: name.map(|name| groups_of(name, group)).unwrap_or_default(),
    })
}

fn group_id(wanted: &str, group: &str) -> Option<u32> {
    let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = lines.find(|fields| fields.first() == Some(&wanted));
    named
        .and_then(|fields| fields.get(2)?.parse().ok())
        .or_else(|| wanted.parse().ok())
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    let lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let member = |fields: &Vec<&str>| {
        fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|name| name == user))
    };
    lines
        .filter(member)
        .filter_map(|fields| fields.get(2)?.parse().ok())
        .collect()
}

/// The file as a container would see it: the topmost layer that has or hides it decides. Absent: empty.
fn read_file(layers: &[PathBuf], path: &'static str) -> io::Result<String> {
    for layer in layers {
        if hides(layer, "etc")? || hides(layer, path)? {
            break;
        }
        match open_in_layer(layer, path) {
            Ok(file) => {
                if !file.metadata()?.is_file() {
                    break;
                }
                let mut bytes = Vec::new();
                file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
        if is_opaque(layer) {
            break;
        }
    }
    Ok(String::new())
}

fn hides(layer: &std::path::Path, path: &str) -> io::Result<bool> {
    match statat(CWD, layer.join(path), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(is_whiteout(&stat)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_opaque(layer: &std::path::Path) -> bool {
    let etc = layer.join("etc");
    let is_folder = statat(CWD, &etc, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let mut value = [0; 1];
    is_folder && rustix::fs::lgetxattr(&etc, "trusted.overlay.opaque", &mut value).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:root,web\naudio:x:29:web\n";

    fn check(user: &str, expected: Option<(u32, u32, &[u32])>) {
        let found = resolve(user, PASSWD, GROUP).ok();
        let expected = expected.map(|(uid, gid, more)| User {
            uid,
            gid,
            additional_gids: more.to_vec(),
        });
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn users_are_names_or_numbers_with_an_optional_group() {
        check("web", Some((101, 102, &[200, 29])));
        check("101", Some((101, 102, &[200, 29])));
        check("4711", Some((4711, 0, &[])));
        check("web:logs", Some((101, 200, &[])));
        check("4711:4712", Some((4711, 4712, &[])));
        check("web:", Some((101, 102, &[200, 29])));
        check("nobody", None);
        check("web:nogroup", None);
        check("-1", None);
    }

    #[test]
    fn the_topmost_layer_that_has_or_hides_the_file_decides() {
        let folder = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "middle", "bottom"]
            .map(|name| folder.path().join(name))
            .into();
        layers
            .iter()
            .for_each(|layer| fs::create_dir_all(layer.join("etc")).unwrap());
        fs::write(layers[2].join("etc/passwd"), "bottom").unwrap();
        assert_eq!(read_file(&layers, "etc/passwd").unwrap(), "bottom");
        let whiteout = layers[1].join("etc/passwd");
        rustix::fs::mknodat(
            CWD,
            whiteout,
            FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        assert_eq!(read_file(&layers, "etc/passwd").unwrap(), "");
        std::os::unix::fs::symlink("/etc/shadow-of-the-host", layers[0].join("etc/passwd")).unwrap();
        fs::write(layers[0].join("etc/shadow-of-the-host"), "inside").unwrap();
        assert_eq!(read_file(&layers, "etc/passwd").unwrap(), "inside");
    }
}
