//! Where to look for an image, and as whom. Pure.

use crate::credentials::{Credential, Keyring};
use crate::reference::Parts;
use crate::registries::{Place, Registries};

/// One registry or mirror, and the users to try there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) place: Place,
    /// In order; `None` is nobody, and there is always at least one.
    pub(super) users: Vec<Option<Credential>>,
}

/// Mirrors first. A mirror gets the credentials that are for its own name, never those of the registry it stands for.
pub(super) fn targets(reference: &str, registries: &Registries, keyring: &Keyring) -> Vec<Target> {
    let image = Parts::of(reference);
    let target = |place: Place| {
        let name = if place.is_origin {
            format!("{}/{}", image.registry, image.repository)
        } else {
            format!("{}/{}", place.host, place.repository)
        };
        let mut users: Vec<Option<Credential>> = keyring.lookup(&name).into_iter().map(Some).collect();
        let of_host = registries.host(&place.host).and_then(|host| host.auth.as_ref());
        users.extend(of_host.map(|auth| Some(auth.credential.clone())));
        if users.is_empty() {
            users.push(None);
        }
        Target { place, users }
    };
    registries.places(&image).into_iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(auths: &str, expected: &[&str]) {
        let registries: Registries = serde_yaml::from_str(
            "mirrors: {docker.io: {endpoint: ['https://m.example']}}\nconfigs: {m.example: {auth: {username: mirror, password: x}}}",
        )
        .unwrap();
        let mut keyring = Keyring::default();
        keyring
            .add_file(format!(r#"{{"auths":{auths}}}"#).as_bytes())
            .unwrap();
        let found: Vec<String> = targets("docker.io/library/nginx:1", &registries, &keyring)
            .iter()
            .map(|target| {
                let users = target.users.iter();
                let names: Vec<_> = users
                    .map(|user| user.as_ref().map_or("nobody", |user| user.username.as_str()))
                    .collect();
                format!("{} as {}", target.place.host, names.join(", "))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mirror_never_sees_the_credentials_of_the_registry() {
        check("{}", &["m.example as mirror", "registry-1.docker.io as nobody"]);
        check(
            r#"{"docker.io":{"username":"hub"},"m.example":{"username":"own"}}"#,
            &["m.example as own, mirror", "registry-1.docker.io as hub"],
        );
    }
}
