//! `kubectl --as`: acting as somebody else, for those who may.
//!
//! Pure.

use flotilla_api::Status;
use http::HeaderMap;

use super::{Attributes, User, authorize};

/// The user as whom the request is to be carried out: the caller, or whom the `Impersonate-…` headers name.
pub(crate) fn impersonated(caller: User, headers: &HeaderMap) -> Result<User, Status> {
    let groups = values(headers, "impersonate-group");
    let Some(name) = values(headers, "impersonate-user").into_iter().next() else {
        let others = headers
            .keys()
            .any(|name| name.as_str().starts_with("impersonate-"));
        return match others {
            true => Err(Status::bad_request(
                "requested impersonation without a user to impersonate",
            )),
            false => Ok(caller),
        };
    };
    check(&caller, "users", &name)?;
    for group in &groups {
        check(&caller, "groups", group)?;
    }
    Ok(User { name, groups }.authenticated())
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let found = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    found
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect()
}

fn check(caller: &User, resource: &str, name: &str) -> Result<(), Status> {
    let wanted = Attributes {
        verb: "impersonate".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    authorize::check(caller, &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(groups: &[&str]) -> User {
        User {
            name: "me".into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    fn acting(groups: &[&str], headers: &[(&'static str, &str)]) -> Result<String, String> {
        let headers = headers.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                value.parse::<http::HeaderValue>().unwrap(),
            )
        });
        let user = impersonated(user(groups), &headers.collect()).map_err(|status| status.message)?;
        Ok(format!("{} {}", user.name, user.groups.join(",")))
    }

    #[test]
    fn masters_may_act_as_anybody() {
        let headers = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
        assert_eq!(
            acting(&["system:masters"], &headers).unwrap(),
            "jane dev,system:authenticated"
        );
        assert_eq!(acting(&["dev"], &[]).unwrap(), "me dev");
    }

    #[test]
    fn others_may_not() {
        assert_eq!(
            acting(&["dev"], &[("impersonate-user", "jane")]).unwrap_err(),
            "users \"jane\" is forbidden: User \"me\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        assert!(acting(&["system:masters"], &[("impersonate-group", "dev")]).is_err());
    }
}
