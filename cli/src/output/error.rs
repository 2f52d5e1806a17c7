//! How a failed command explains itself: kubectl's words for the server's errors.

use kube::core::Status;

use crate::client::RequestError;
use crate::remote::Exited;

/// Ends a command with exit code 1 after its errors have been printed.
#[derive(Debug, thiserror::Error)]
#[error("some of the objects failed")]
pub(crate) struct AlreadyReported;

/// What failed of a command that goes on with the next object: each failure is told at once, and the command fails at
/// its end.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    any: bool,
}

impl Failures {
    /// Tells the failure, if it is one; what succeeded otherwise.
    pub(crate) fn note<T>(&mut self, outcome: anyhow::Result<T>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                self.any = true;
                print(error);
            })
            .ok()
    }

    /// Fails if anything did.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        if self.any {
            return Err(AlreadyReported.into());
        }
        Ok(())
    }
}

/// Prints an error and its causes.
pub(crate) fn print(error: &anyhow::Error) {
    if !error.is::<AlreadyReported>() {
        super::error_line(explain(error));
    }
}

/// The text for an error and its causes; lines of context stand before a server's message.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let contexts: Vec<String> = error
        .chain()
        .take_while(|cause| !cause.is::<RequestError>())
        .map(ToString::to_string)
        .collect();
    match error
        .chain()
        .find_map(|cause| cause.downcast_ref::<RequestError>())
    {
        Some(RequestError::Server(status)) => server(status, &contexts.join(": ")),
        Some(error @ RequestError::Refused { .. }) => {
            format!(
                "{error}\nIs the cluster up? `flotilla local status` tells; `flotilla local up` starts one."
            )
        }
        Some(error) => format!("{error}{}", causes(error)),
        // In kubectl's words, which scripts look for.
        None if error.is::<Exited>() => error.to_string(),
        None => format!("error: {}", without_repetition(error)),
    }
}

/// Sources often repeat what their parents already say.
fn without_repetition(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    text
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

fn server(status: &Status, context: &str) -> String {
    match status.reason.as_str() {
        "Invalid" => invalid(status),
        "Unauthorized" => "error: You must be logged in to the server (Unauthorized)".to_owned(),
        reason => {
            let reason = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            let context = if context.is_empty() {
                String::new()
            } else {
                format!("{context}: ")
            };
            format!("Error from server{reason}: {context}{}", status.message)
        }
    }
}

fn invalid(status: &Status) -> String {
    let Some(details) = &status.details else {
        return format!("The request is invalid: {}", status.message);
    };
    let subject = if details.kind.is_empty() && details.name.is_empty() {
        "The request is invalid".to_owned()
    } else {
        format!("The {} {:?} is invalid", details.kind, details.name)
    };
    let mut causes: Vec<String> = Vec::new();
    for cause in &details.causes {
        let text = format!("{}: {}", cause.field, cause.message);
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    match causes.as_slice() {
        [] => format!("{subject}: {}", status.message),
        [only] => format!("{subject}: {only}"),
        several => format!("{subject}: \n* {}", several.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn explained(status: serde_json::Value) -> String {
        let status: Status = serde_json::from_value(status).unwrap();
        explain(&RequestError::Server(Box::new(status)).into())
    }

    #[test]
    fn a_servers_errors_are_put_as_kubectl_puts_them() {
        expect![[r#"Error from server (NotFound): pods "x" not found"#]].assert_eq(&explained(
            json!({"reason": "NotFound", "message": "pods \"x\" not found", "code": 404}),
        ));
        expect![[r#"
            The Deployment "web" is invalid: 
            * spec.replicas: Invalid value: -1
            * spec.selector: Required value"#]]
        .assert_eq(&explained(json!({"reason": "Invalid", "message": "…", "details": {"kind": "Deployment", "name": "web", "causes": [
            {"field": "spec.replicas", "message": "Invalid value: -1"}, {"field": "spec.selector", "message": "Required value"},
            {"field": "spec.selector", "message": "Required value"}]}})));
    }

    #[test]
    fn context_stands_between_reason_and_message() {
        let status: Status =
            serde_json::from_value(json!({"reason": "NotFound", "message": "namespaces \"a\" not found"}))
                .unwrap();
        let error = anyhow::Error::from(RequestError::Server(Box::new(status)))
            .context("error when creating \"x.yaml\"");
        expect![[r#"Error from server (NotFound): error when creating "x.yaml": namespaces "a" not found"#]]
            .assert_eq(&explain(&error));
    }
}
