//! How a command ended, in the words of each version of the protocol. Pure.

use flotilla_api::Reason;
use flotilla_tunnel::request::Outcome;
use serde_json::json;

/// What is sent on the error channel; nothing when all went well and the version tells only errors.
pub(super) fn render(outcome: &Outcome, version: u8) -> Option<String> {
    if version >= 4 {
        return Some(status(outcome).to_string());
    }
    match outcome {
        Outcome::Exited(0) => None,
        Outcome::Exited(code) => Some(exited(*code)),
        Outcome::Failed(message) => Some(message.clone()),
    }
}

/// What the client is told when the node says nothing any more.
pub(super) fn lost() -> Outcome {
    Outcome::Failed(
        "the connection to the pod's node was lost, so it is not known how the command ended".to_owned(),
    )
}

fn exited(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit status {code}")
}

fn status(outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": exited(*code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Failed(message) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {message}"),
            "reason": Reason::InternalError.as_str(),
            "details": {"causes": [{"message": message}]},
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_clients_get_a_status() {
        assert_eq!(
            render(&Outcome::Exited(0), 4).unwrap(),
            r#"{"metadata":{},"status":"Success"}"#
        );
        let failed: serde_json::Value =
            serde_json::from_str(&render(&Outcome::Exited(3), 5).unwrap()).unwrap();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(
            failed["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "3"})
        );
    }

    #[test]
    fn old_clients_get_text_and_only_of_errors() {
        assert_eq!(render(&Outcome::Exited(0), 3), None);
        assert_eq!(
            render(&Outcome::Exited(2), 1).unwrap(),
            "command terminated with non-zero exit code: exit status 2"
        );
        assert_eq!(render(&Outcome::Failed("no".into()), 2).unwrap(), "no");
    }
}
