//! Member: computed when it is asked for. It comes by joining, so it can only be read and deleted.

use jiff::Timestamp;
use serde_json::Value;

use crate::builder::{Builder, name_cell};
use crate::duration;
use crate::kind::{Column, Kind};
use crate::members::Member;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "ID",
        "Its identity in consensus, which its data folder has as well.",
    ),
    Column::text(
        "Role",
        "Leader, Voter, or Learner: one that has not caught up yet.",
    ),
    Column::text("Address", "Where other servers dial it."),
    Column::text("Log", "The last log entry that it surely has."),
    Column::text("Behind", "How many entries it lacks of the leader's log."),
    Column::text(
        "Last Heard",
        "Time since the leader last had an answer of it; the leader is not asked.",
    ),
];

pub(crate) fn kind() -> Kind {
    Builder::<Member>::cluster_scoped("member")
        .verbs(&["delete", "get", "list"])
        .columns(COLUMNS, cells)
        .computed()
        .build()
}

fn cells(member: &Member, now: Timestamp) -> Vec<Value> {
    let status = &member.status;
    let number = |number: Option<u64>| number.map_or_else(|| "<unknown>".to_owned(), |it| it.to_string());
    let heard = match (status.role.as_str(), &status.last_heard_time) {
        ("Leader", _) => "-".to_owned(),
        (_, heard) => duration::age(heard.as_ref().map(|time| time.0), now),
    };
    vec![
        name_cell(&member.metadata),
        member.metadata.uid.clone().unwrap_or_default().into(),
        status.role.clone().into(),
        status.address.clone().into(),
        number(status.log_index).into(),
        number(status.behind).into(),
        heard.into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_nobody_knows_is_shown_as_unknown_and_a_leader_is_not_heard_of() {
        let line = |name: &str, status: &str| {
            let object = format!(
                r#"{{"metadata":{{"name":"{name}","uid":"7"}},"status":{{"address":"a:1",{status}}}}}"#
            );
            let member: Member = serde_json::from_str(&object).unwrap();
            let cells = cells(&member, "2026-11-21T09:00:00Z".parse().unwrap());
            let cells: Vec<&str> = cells.iter().filter_map(Value::as_str).collect();
            cells.join(" | ") + "\n"
        };
        let heard = r#""lastHeardTime":"2026-11-21T08:59:58Z""#;
        let table = [
            line(
                "leads",
                &format!(r#""role":"Leader","logIndex":9,"behind":0,{heard}"#),
            ),
            line(
                "follows",
                &format!(r#""role":"Voter","logIndex":7,"behind":2,{heard}"#),
            ),
            line("silent", r#""role":"Learner""#),
        ];
        expect![[r#"
            leads | 7 | Leader | a:1 | 9 | 0 | -
            follows | 7 | Voter | a:1 | 7 | 2 | 2s
            silent | 7 | Learner | a:1 | <unknown> | <unknown> | <unknown>
        "#]]
        .assert_eq(&table.concat());
    }
}
