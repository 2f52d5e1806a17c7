//! Compiles a profile to programs for the kernel's filter machine.

use std::collections::{BTreeMap, BTreeSet};
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

/// `AUDIT_ARCH_…` of the kernel: the machine's ELF number, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCHITECTURE: u32 = 0xc000_0000 | libc::EM_X86_64 as u32;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCHITECTURE: u32 = 0xc000_0000 | libc::EM_AARCH64 as u32;

/// Where `struct seccomp_data` has the call's number.
const NUMBER_OFFSET: u32 = 0;
/// Where it has the architecture of whoever calls.
const ARCHITECTURE_OFFSET: u32 = 4;

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
    let mut unconditional = BTreeSet::new();
    for rule in rules {
        // Names of other architectures, or of kernels to come, mean nothing here; so runc has it.
        for call in rule.names.iter().filter_map(|name| Sysno::from_str(name).ok()) {
            if rule.conditions.is_empty() {
                unconditional.insert(call.id().cast_unsigned());
            } else {
                let chain = chains.entry(i64::from(call.id())).or_default();
                chain.push(SeccompRule::new(
                    rule.conditions.iter().map(translate).collect::<Result<_, _>>()?,
                )?);
            }
        }
    }
    chains.retain(|call, _| u32::try_from(*call).is_ok_and(|call| !unconditional.contains(&call)));
    let conditional = SeccompFilter::new(chains, action(otherwise), action(matched), ARCHITECTURE)?;
    let mut program = unconditional_first(&unconditional, action(matched).into());
    program.extend(BpfProgram::try_from(conditional)?);
    Ok(program)
}

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JUMP_IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The beginning of a program: answers to calls of which nothing but the number counts, in runs of numbers. Everything
/// else goes on behind it.
///
/// The library tests number by number, which makes a program of 1,700 instructions out of the default profile. The
/// kernel runs it for every number there is when it is loaded: that took a millisecond of every start.
fn unconditional_first(calls: &BTreeSet<u32>, answer: u32) -> BpfProgram {
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for call in calls {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *call => *last = *call,
            _ => runs.push((*call, *call)),
        }
    }
    let tests = runs.into_iter().flat_map(|(first, last)| {
        [
            instruction(JUMP_IF_NOT_LESS, 0, 2, first),
            instruction(JUMP_IF_GREATER, 1, 0, last),
            instruction(RETURN, 0, 0, answer),
        ]
    });
    let mut program = vec![instruction(LOAD_WORD, 0, 0, NUMBER_OFFSET)];
    program.extend(tests);
    // Of another architecture the numbers mean something else; what is behind knows what to do.
    let length = u32::try_from(program.len()).expect("there are some hundred calls");
    let other = [
        instruction(LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        instruction(JUMP_IF_EQUAL, 1, 0, AUDIT_ARCHITECTURE),
        instruction(JUMP, 0, 0, length),
    ];
    other.into_iter().chain(program).collect()
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
