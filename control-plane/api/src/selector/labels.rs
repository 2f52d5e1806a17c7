//! Label selectors: `app=web,tier!=db,env in (a,b),!canary,rank>3`.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as LabelSelectorField;

use crate::status::Status;

/// Picks objects by their labels; all requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// What one label must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Kubernetes' own operators")]
pub enum Requirement {
    Equals { key: String, value: String },
    NotEquals { key: String, value: String },
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists { key: String },
    DoesNotExist { key: String },
    GreaterThan { key: String, value: i64 },
    LessThan { key: String, value: i64 },
}

type Labels = BTreeMap<String, String>;

impl LabelSelector {
    /// Reads the text of `-l` or `labelSelector=`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let requirements = parse::requirements(text)
            .map_err(|problem| Status::bad_request(format!("unable to parse requirement: {problem}")))?;
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// The selector of a field such as `spec.selector`; an absent one picks nothing, an empty one everything.
    pub fn from_field(field: Option<&LabelSelectorField>) -> Result<Self, Status> {
        let Some(field) = field else {
            return Ok(Self::nothing());
        };
        let mut selector = Self::from_map(field.match_labels.as_ref());
        for expression in field.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values = expression.values.clone().unwrap_or_default();
            selector.requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In { key, values },
                "NotIn" => Requirement::NotIn { key, values },
                "Exists" => Requirement::Exists { key },
                "DoesNotExist" => Requirement::DoesNotExist { key },
                other => {
                    let problem = format!("{other:?} is not a valid label selector operator");
                    return Err(Status::bad_request(problem));
                }
            });
        }
        selector.requirements.sort_by(|a, b| a.key().cmp(b.key()));
        Ok(selector)
    }

    /// The selector of a plain map, such as a service's; all labels must be equal.
    pub fn from_map(labels: Option<&Labels>) -> Self {
        let requirements = labels.into_iter().flatten();
        let requirements = requirements.map(|(key, value)| Requirement::Equals {
            key: key.clone(),
            value: value.clone(),
        });
        Self {
            requirements: requirements.collect(),
            nothing: false,
        }
    }

    /// Picks nothing.
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Whether it picks everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object with these labels is picked.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|one| one.matches(labels))
    }

    /// As [`LabelSelector::matches`], for metadata's optional labels.
    pub fn matches_optional(&self, labels: Option<&Labels>) -> bool {
        static NONE: Labels = Labels::new();
        self.matches(labels.unwrap_or(&NONE))
    }
}

impl Requirement {
    /// The label it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Equals { key, .. }
            | Self::NotEquals { key, .. }
            | Self::In { key, .. }
            | Self::NotIn { key, .. }
            | Self::Exists { key }
            | Self::DoesNotExist { key }
            | Self::GreaterThan { key, .. }
            | Self::LessThan { key, .. } => key,
        }
    }

    /// Whether it holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let found = labels.get(self.key());
        let number = || found.and_then(|text| text.parse::<i64>().ok());
        match self {
            Self::Equals { value, .. } => found == Some(value),
            Self::NotEquals { value, .. } => found != Some(value),
            Self::In { values, .. } => found.is_some_and(|found| values.contains(found)),
            Self::NotIn { values, .. } => found.is_none_or(|found| !values.contains(found)),
            Self::Exists { .. } => found.is_some(),
            Self::DoesNotExist { .. } => found.is_none(),
            Self::GreaterThan { value, .. } => number().is_some_and(|number| number > *value),
            Self::LessThan { value, .. } => number().is_some_and(|number| number < *value),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[String]| {
            let mut values = values.to_vec();
            values.sort();
            values.join(",")
        };
        match self {
            Self::Equals { key, value } => write!(f, "{key}={value}"),
            Self::NotEquals { key, value } => write!(f, "{key}!={value}"),
            Self::In { key, values } => write!(f, "{key} in ({})", list(values)),
            Self::NotIn { key, values } => write!(f, "{key} notin ({})", list(values)),
            Self::Exists { key } => f.write_str(key),
            Self::DoesNotExist { key } => write!(f, "!{key}"),
            Self::GreaterThan { key, value } => write!(f, "{key}>{value}"),
            Self::LessThan { key, value } => write!(f, "{key}<{value}"),
        }
    }
}

/// The selector as `-o wide` shows it; `<none>` for one that picks everything.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("<none>");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &str) -> bool {
        let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn selectors_pick_by_label() {
        for (selector, labels, picked) in [
            ("", "", true),
            ("app=web", "app=web,tier=x", true),
            ("app==web", "app=web", true),
            ("app=web", "app=db", false),
            ("app=", "app=", true),
            ("app", "app=", true),
            ("app", "", false),
            ("!app", "", true),
            ("app!=web", "", true),
            ("app!=web", "app=web", false),
            ("env in (a, b)", "env=b", true),
            ("env in (a,b),app", "env=b", false),
            ("env notin (a,b)", "", true),
            ("env notin (a,b)", "env=a", false),
            ("env in ()", "env=", true),
            ("rank>3", "rank=4", true),
            ("rank > 3", "rank=3", false),
            ("rank<3", "rank=2", true),
            ("rank<3", "rank=x", false),
            ("example.com/a=b", "example.com/a=b", true),
            ("in=notin", "in=notin", true),
        ] {
            assert_eq!(check(selector, labels), picked, "{selector} of {labels}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in [
            "=a", "a=b=c", "a in", "a in (", "a in (b", "a,,b", "a b", "a>x", "!", "a=b c", "-a=b", "a=b,",
        ] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn they_are_shown_in_canonical_form() {
        for (selector, shown) in [
            ("", "<none>"),
            ("b = c ,a in (z,y), !d, e>3", "b=c,a in (y,z),!d,e>3"),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_absent_field_picks_nothing_and_an_empty_one_everything() {
        let labels = BTreeMap::new();
        assert!(!LabelSelector::from_field(None).unwrap().matches(&labels));
        assert!(
            LabelSelector::from_field(Some(&Default::default()))
                .unwrap()
                .matches(&labels)
        );
    }
}
