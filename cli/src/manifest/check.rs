//! Checks a document before it is sent: apiVersion, kind, name, and the fields of known kinds.
//!
//! Pure, given discovery.

use crate::discovery::{Discovery, Resource};

use super::suggest::{did_you_mean, nearest};
use super::{Document, Problem, Segment, fields, kinds};

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Unknown fields and wrong types, by the types of the Kubernetes version this was built with.
    pub(crate) fields: bool,
    /// `metadata.name`; creating also takes `generateName`.
    pub(crate) generate_name: bool,
}

/// Finds the server's resource for a document, or says what is wrong with it.
pub(crate) fn check<'a>(
    document: &Document,
    discovery: &'a Discovery,
    checks: Checks,
) -> Result<&'a Resource, Vec<Problem>> {
    let one = |problem| vec![problem];
    let api_version = required_text(document, "apiVersion").map_err(one)?;
    let kind = required_text(document, "kind").map_err(one)?;
    let resource = discovery.of_kind(api_version, kind);
    let resource = resource.ok_or_else(|| vec![unknown_kind(document, discovery, api_version, kind)])?;
    let mut problems = Vec::new();
    if checks.fields {
        let found = kinds::check(api_version, kind, &document.value);
        let problem = |fields::Finding { path, message }| {
            let at = if path.len() > 1 {
                format!("{}: ", dotted(&path[..path.len() - 1]))
            } else {
                String::new()
            };
            document.problem(&path, format!("{at}{message}"))
        };
        problems.extend(found.into_iter().map(problem));
    }
    problems.extend(missing_name(document, checks));
    if problems.is_empty() {
        Ok(resource)
    } else {
        Err(problems)
    }
}

fn required_text<'a>(document: &'a Document, field: &str) -> Result<&'a str, Problem> {
    const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
    let path = [Segment::Field(field.to_owned())];
    match &document.value[field] {
        serde_json::Value::String(text) if !text.is_empty() => Ok(text),
        serde_json::Value::Null => {
            let keys = document.value.as_object().into_iter().flat_map(|map| map.keys());
            let mut slips =
                keys.filter(|key| !TOP.contains(&key.as_str()) && nearest(key, TOP) == Some(field));
            Err(match slips.next() {
                Some(slip) => {
                    let message = format!("unknown field \"{slip}\", did you mean \"{field}\"?");
                    document.problem(&[Segment::Field(slip.clone())], message)
                }
                None => {
                    let example = if field == "kind" {
                        "kind: Pod"
                    } else {
                        "apiVersion: v1"
                    };
                    document.problem(&[], format!("{field} is missing: add a line such as `{example}`"))
                }
            })
        }
        other => Err(document.problem(&path, format!("{field} has to be text, this is {other}"))),
    }
}

fn unknown_kind(document: &Document, discovery: &Discovery, api_version: &str, kind: &str) -> Problem {
    let at = |field: &str| [Segment::Field(field.to_owned())];
    let all = discovery.all();
    let in_version = all
        .iter()
        .filter(|resource| resource.api_version() == api_version);
    let kinds: Vec<&str> = in_version.map(|resource| resource.kind.as_str()).collect();
    if !kinds.is_empty()
        && let Some(near) = nearest(kind, kinds.iter().copied())
    {
        let message =
            format!("unknown kind \"{kind}\" in apiVersion \"{api_version}\", did you mean \"{near}\"?");
        return document.problem(&at("kind"), message);
    }
    let elsewhere: Vec<String> = all
        .iter()
        .filter(|resource| resource.kind.eq_ignore_ascii_case(kind))
        .map(Resource::api_version)
        .collect();
    if let [first, ..] = elsewhere.as_slice() {
        let near = nearest(api_version, elsewhere.iter().map(String::as_str)).unwrap_or(first);
        let message = format!(
            "there is no kind \"{kind}\" in apiVersion \"{api_version}\", did you mean apiVersion \"{near}\"?"
        );
        return document.problem(&at("apiVersion"), message);
    }
    let versions: Vec<String> = all.iter().map(Resource::api_version).collect();
    if !versions.iter().any(|known| known == api_version)
        && let Some(near) = nearest(api_version, versions.iter().map(String::as_str))
    {
        let message = format!("unknown apiVersion \"{api_version}\", did you mean \"{near}\"?");
        return document.problem(&at("apiVersion"), message);
    }
    let near = did_you_mean(kind, all.iter().map(|resource| resource.kind.as_str()));
    let hint = if near.is_empty() {
        ": install its CustomResourceDefinition first; `flotilla api-resources` lists what the server has"
            .to_owned()
    } else {
        near
    };
    document.problem(
        &at("kind"),
        format!("no matches for kind \"{kind}\" in version \"{api_version}\"{hint}"),
    )
}

fn missing_name(document: &Document, checks: Checks) -> Option<Problem> {
    let metadata = &document.value["metadata"];
    let generated = checks.generate_name
        && metadata["generateName"]
            .as_str()
            .is_some_and(|name| !name.is_empty());
    match &metadata["name"] {
        serde_json::Value::String(name) if !name.is_empty() => None,
        serde_json::Value::Null | serde_json::Value::String(_) if generated => None,
        serde_json::Value::Null | serde_json::Value::String(_) => {
            let path = [
                Segment::Field("metadata".to_owned()),
                Segment::Field("name".to_owned()),
            ];
            let message = "metadata.name is missing: give the object a name".to_owned();
            Some(document.problem(&path, message))
        }
        // Kinds that are known here have complained already.
        _ if checks.fields && kinds::is_known(&document.value) => None,
        other => {
            let path = [
                Segment::Field("metadata".to_owned()),
                Segment::Field("name".to_owned()),
            ];
            Some(document.problem(
                &path,
                format!("metadata.name has to be text, this is {other}: put it in quotes"),
            ))
        }
    }
}

/// `spec.containers[0]`, as Kubernetes writes field paths.
fn dotted(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Field(name) if out.is_empty() => out.push_str(name),
            Segment::Field(name) => out.push_str(&format!(".{name}")),
            Segment::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::discovery::tests::sample;

    fn check_text(text: &str, expected: Expect) {
        let discovery = sample();
        let checks = Checks {
            fields: true,
            generate_name: false,
        };
        let documents = crate::manifest::parse("web.yaml", text).unwrap();
        let lines: Vec<String> = documents
            .iter()
            .map(|document| match check(document, &discovery, checks) {
                Ok(resource) => resource.plural.clone(),
                Err(problems) => problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            })
            .collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn slips_in_the_first_lines_are_answered_with_what_was_meant() {
        check_text(
            "apiVerison: v1\nkind: Pod\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:1:1: unknown field "apiVerison", did you mean "apiVersion"?
              1 | apiVerison: v1
                | ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: pod\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:2:1: unknown kind "pod" in apiVersion "v1", did you mean "Pod"?
              1 | apiVersion: v1
              2 | kind: pod
                | ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: Deployment\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:1:1: there is no kind "Deployment" in apiVersion "v1", did you mean apiVersion "apps/v1"?
              1 | apiVersion: v1
                | ^"#]],
        );
        check_text(
            "apiVersion: app/v1\nkind: Deploymnt\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:1:1: unknown apiVersion "app/v1", did you mean "apps/v1"?
              1 | apiVersion: app/v1
                | ^"#]],
        );
        check_text(
            "apiVersion: v1\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:1:1: kind is missing: add a line such as `kind: Pod`
              1 | apiVersion: v1
                | ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n",
            expect![[r#"
            web.yaml:3:1: metadata.name is missing: give the object a name
              2 | kind: Pod
              3 | metadata:
                | ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: Unicorn\nmetadata:\n  name: a\n",
            expect![[r#"
            web.yaml:2:1: no matches for kind "Unicorn" in version "v1": install its CustomResourceDefinition first; `flotilla api-resources` lists what the server has
              1 | apiVersion: v1
              2 | kind: Unicorn
                | ^"#]],
        );
    }

    #[test]
    fn fields_within_are_checked_where_the_kind_is_known() {
        check_text(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: 5\nspec:\n  replica: 3\n  template:\n    spec:\n      containers:\n      - name: a\n        imagee: x\n",
            expect![[r#"
                web.yaml:4:3: metadata: invalid type: integer `5`, expected a string: put it in quotes
                  3 | metadata:
                  4 |   name: 5
                    |   ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    env:\n    - name: X\n      value: 1\n",
            expect![[r#"
            web.yaml:10:7: spec.containers[0].env[0]: invalid type: integer `1`, expected a string: put it in quotes
               9 |     - name: X
              10 |       value: 1
                 |       ^"#]],
        );
        check_text(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n",
            expect!["pods"],
        );
    }
}
