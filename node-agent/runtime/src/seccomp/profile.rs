//! What a seccomp profile says, and reading it from the OCI runtime specification's JSON.

use serde::Deserialize;

/// Which system calls do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// For calls that no rule is about.
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
}

/// What some system calls do under some conditions, all of which have to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) conditions: Vec<Condition>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u32),
    KillProcess,
    KillThread,
    Log,
    Trace(u32),
    Trap,
}

/// Something about one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of a mask.
    MaskedEqual(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Syscalls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile; the error tells what is wrong with it.
pub(super) fn parse(json: &[u8]) -> Result<Profile, String> {
    let file: File = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for entry in file.syscalls {
        let action = action(&entry.action, entry.errno_ret)?;
        let conditions = entry.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        let rule = |conditions| Rule {
            names: entry.names.clone(),
            action,
            conditions,
        };
        if tests_one_argument_twice(&conditions) {
            // runc reads several conditions on one argument as alternatives.
            rules.extend(conditions.into_iter().map(|condition| rule(vec![condition])));
        } else {
            rules.push(rule(conditions));
        }
    }
    Ok(Profile {
        default: action(&file.default_action, file.default_errno_ret)?,
        rules,
    })
}

fn tests_one_argument_twice(conditions: &[Condition]) -> bool {
    let mut arguments: Vec<u8> = conditions.iter().map(|condition| condition.argument).collect();
    arguments.sort_unstable();
    arguments.windows(2).any(|pair| pair[0] == pair[1])
}

fn action(name: &str, number: Option<u32>) -> Result<Action, String> {
    let errno = number.unwrap_or(libc::EPERM.unsigned_abs());
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRACE" => Action::Trace(errno),
        "SCMP_ACT_TRAP" => Action::Trap,
        other => return Err(format!("the action {other:?} is not supported")),
    })
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    let plain = |operator| (operator, argument.value);
    let (operator, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => plain(Operator::Equal),
        "SCMP_CMP_NE" => plain(Operator::NotEqual),
        "SCMP_CMP_LT" => plain(Operator::Less),
        "SCMP_CMP_LE" => plain(Operator::LessOrEqual),
        "SCMP_CMP_GT" => plain(Operator::Greater),
        "SCMP_CMP_GE" => plain(Operator::GreaterOrEqual),
        "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual(argument.value), argument.value_two),
        other => return Err(format!("the comparison {other:?} does not exist")),
    };
    if argument.index > 5 {
        return Err(format!("a system call has no argument {}", argument.index));
    }
    Ok(Condition {
        argument: argument.index,
        operator,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_runc_reads_it() {
        let profile = parse(
            br#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
                    {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 17, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_LOG", "args": [
                    {"index": 0, "value": 255, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(profile.default, Action::Allow);
        assert_eq!(
            profile.rules.len(),
            4,
            "two conditions on one argument are alternatives"
        );
        assert_eq!(profile.rules[0].action, Action::Errno(28));
        let masked = profile.rules[3].conditions[0];
        assert_eq!((masked.operator, masked.value), (Operator::MaskedEqual(255), 3));
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_told() {
        let wrong = |json: &str| parse(json.as_bytes()).unwrap_err();
        assert!(wrong("{}").contains("missing field `defaultAction`"));
        assert_eq!(
            wrong(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#),
            "the action \"SCMP_ACT_NOTIFY\" is not supported"
        );
    }
}
