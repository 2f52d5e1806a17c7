//! Query strings and percent-encoding.

use flotilla_api::field::Verbatim;
use flotilla_api::{FieldErrors, FieldValidation, Path, Status};

/// The parameters of a request's URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name, true), decoded(value, true))
                })
                .collect(),
        )
    }

    /// The parameter's value, unless it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self
            .0
            .iter()
            .filter(|(found, value)| found == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set, as Kubernetes reads them: present, and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        self.all(name)
            .next()
            .map(|value| !matches!(value, "false" | "0" | "False"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "unable to parse query parameter {name}: invalid number \"{value}\""
            ))
        })
    }

    /// Whether `dryRun=All` is asked for; `options` is Kubernetes' name for the request's parameters.
    pub(crate) fn dry_run(&self, options: &str) -> Result<bool, Status> {
        let asked: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        dry_run(&asked, options)
    }

    pub(crate) fn field_validation(&self, options: &str) -> Result<FieldValidation, Status> {
        let asked = self.get("fieldValidation").unwrap_or_default();
        FieldValidation::parse(asked).ok_or_else(|| {
            refused(options, |errors| {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.not_supported(Path::root("fieldValidation"), asked, &supported);
            })
        })
    }
}

/// Whether `dryRun` asks for what Kubernetes knows: everything or nothing.
pub(crate) fn dry_run(asked: &[&str], options: &str) -> Result<bool, Status> {
    if asked.iter().all(|value| *value == "All") {
        return Ok(!asked.is_empty());
    }
    // Kubernetes shows the list as Go writes it.
    let shown: Vec<String> = asked.iter().map(|value| format!("{value:?}")).collect();
    let shown = Verbatim(format!("[]string{{{}}}", shown.join(", ")));
    Err(refused(options, |errors| {
        errors.not_supported(Path::root("dryRun"), shown, &["All"]);
    }))
}

/// A refusal of a request's parameters.
pub(crate) fn refused(options: &str, problem: impl FnOnce(&mut FieldErrors)) -> Status {
    let mut errors = FieldErrors::default();
    problem(&mut errors);
    Status::invalid_options(options, &errors.into_vec())
}

/// Undoes percent-encoding; what is not valid UTF-8 is replaced.
pub(crate) fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match (escaped, first) {
            (Some((high, low)), _) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
                continue;
            }
            (None, b'+') if plus_is_space => bytes.push(b' '),
            (None, other) => bytes.push(other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use flotilla_api::Reason;

    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch&x=%zz&dup=&dup=2");
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.get("dup"), Some("2"));
        assert!(query.flag("watch"));
        assert!(!query.flag("missing"));
    }

    #[test]
    fn broken_escapes_do_not_panic() {
        for text in ["%", "%4", "%é1", "a%", "%%41"] {
            decoded(text, false);
        }
        assert_eq!(decoded("%%41", false), "%A");
    }

    #[test]
    fn dry_runs_are_all_or_nothing() {
        let read = |query: &str| {
            let read = Query::parse(query).dry_run("PatchOptions");
            read.map_err(|status| (status.reason, status.message))
        };
        assert_eq!(read(""), Ok(false));
        assert_eq!(read("dryRun="), Ok(false));
        assert_eq!(read("dryRun=All"), Ok(true));
        let message = r#"PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"Some"}: supported values: "All""#;
        assert_eq!(read("dryRun=Some"), Err((Reason::Invalid, message.to_owned())));
    }

    #[test]
    fn an_unknown_validation_is_refused() {
        let status = Query::parse("fieldValidation=Lax").field_validation("CreateOptions");
        assert_eq!(
            status.unwrap_err().message,
            r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Lax": supported values: "", "Ignore", "Strict", "Warn""#
        );
    }

    #[test]
    fn flags_can_be_switched_off() {
        let query = Query::parse("a=false&b=0&c=true&d=1&e=");
        let flags: Vec<bool> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|name| query.flag(name))
            .collect();
        assert_eq!(flags, [false, false, true, true, true]);
    }
}
