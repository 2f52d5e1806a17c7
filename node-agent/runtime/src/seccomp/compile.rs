//! Compiles a profile to programs for the kernel's filter machine.

use std::collections::BTreeMap;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use syscalls::Sysno;

use super::profile::{Action, Condition, Operator, Profile, Rule};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The programs of a profile, in the order in which they are to be loaded.
///
/// A program knows two actions. So there is one for each action but `Allow`, which lets everything else pass, and a
/// last one that gives the default to what no rule is about; of all answers the kernel takes the strictest. The last
/// comes last, for it may forbid to load another.
pub(super) fn compile(profile: &Profile) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let mut actions: Vec<Action> = Vec::new();
    for rule in &profile.rules {
        if !matches!(rule.action, Action::Allow)
            && rule.action != profile.default
            && !actions.contains(&rule.action)
        {
            actions.push(rule.action);
        }
    }
    let mut programs = Vec::new();
    for action in actions {
        let own = profile.rules.iter().filter(|rule| rule.action == action);
        programs.push(program(own, Action::Allow, action)?);
    }
    if profile.default != Action::Allow {
        let others = profile.rules.iter().filter(|rule| rule.action != profile.default);
        programs.push(program(others, profile.default, Action::Allow)?);
    }
    Ok(programs)
}

fn program<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    otherwise: Action,
    matched: Action,
) -> Result<BpfProgram, seccompiler::Error> {
    let mut chains: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional = Vec::new();
    for rule in rules {
        // Names of other architectures, or of kernels to come, mean nothing here; so runc has it.
        for call in rule.names.iter().filter_map(|name| Sysno::from_str(name).ok()) {
            let chain = chains.entry(i64::from(call.id())).or_default();
            if rule.conditions.is_empty() {
                unconditional.push(i64::from(call.id()));
            } else {
                chain.push(SeccompRule::new(
                    rule.conditions.iter().map(translate).collect::<Result<_, _>>()?,
                )?);
            }
        }
    }
    for call in unconditional {
        // An empty chain always matches.
        chains.insert(call, Vec::new());
    }
    let filter = SeccompFilter::new(chains, action(otherwise), action(matched), ARCHITECTURE)?;
    Ok(filter.try_into()?)
}

fn translate(condition: &Condition) -> Result<SeccompCondition, seccompiler::Error> {
    let operator = match condition.operator {
        Operator::Equal => SeccompCmpOp::Eq,
        Operator::NotEqual => SeccompCmpOp::Ne,
        Operator::Less => SeccompCmpOp::Lt,
        Operator::LessOrEqual => SeccompCmpOp::Le,
        Operator::Greater => SeccompCmpOp::Gt,
        Operator::GreaterOrEqual => SeccompCmpOp::Ge,
        Operator::MaskedEqual(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    Ok(SeccompCondition::new(
        condition.argument,
        SeccompCmpArgLen::Qword,
        operator,
        condition.value,
    )?)
}

fn action(action: Action) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Errno(number) => SeccompAction::Errno(number),
        Action::KillProcess => SeccompAction::KillProcess,
        Action::KillThread => SeccompAction::KillThread,
        Action::Log => SeccompAction::Log,
        Action::Trace(number) => SeccompAction::Trace(number),
        Action::Trap => SeccompAction::Trap,
    }
}
