//! Finds what paths point at.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, Filter, Operand, Part, Path, Step};

/// An index that a list does not have.
pub(super) struct OutOfBounds {
    pub(super) index: i64,
    pub(super) length: usize,
}

/// Appends what `parts` print for `current`.
pub(super) fn render(
    parts: &[Part],
    root: &Value,
    current: &Value,
    out: &mut String,
) -> Result<(), OutOfBounds> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Print(path) => {
                let texts: Vec<String> = find(path, root, current)?.into_iter().map(display).collect();
                out.push_str(&texts.join(" "));
            }
            Part::Range { over, body } => {
                for value in find(over, root, current)? {
                    render(body, root, value, out)?;
                }
            }
        }
    }
    Ok(())
}

/// All values that `path` leads to.
pub(super) fn find<'a>(
    path: &Path,
    root: &'a Value,
    current: &'a Value,
) -> Result<Vec<&'a Value>, OutOfBounds> {
    let mut values = vec![if path.from_root { root } else { current }];
    for step in &path.steps {
        let mut next = Vec::new();
        for value in values {
            take(step, root, value, &mut next)?;
        }
        values = next;
    }
    Ok(values)
}

fn take<'a>(
    step: &Step,
    root: &'a Value,
    value: &'a Value,
    out: &mut Vec<&'a Value>,
) -> Result<(), OutOfBounds> {
    match step {
        Step::Field(name) => out.extend(value.get(name.as_str())),
        Step::Fields(names) => out.extend(names.iter().filter_map(|name| value.get(name.as_str()))),
        Step::Wildcard => out.extend(children(value)),
        Step::Descend => descend(value, out),
        Step::Indices(indices) => {
            for &index in indices {
                out.extend(nth(value, index)?);
            }
        }
        Step::Slice { from, to, step } => out.extend(slice(value, *from, *to, *step)),
        Step::Filter(filter) => {
            for child in children(value) {
                if passes(filter, root, child)? {
                    out.push(child);
                }
            }
        }
    }
    Ok(())
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    for child in children(value) {
        descend(child, out);
    }
}

fn nth(value: &Value, index: i64) -> Result<Option<&Value>, OutOfBounds> {
    let Value::Array(items) = value else {
        return Ok(None);
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let position = if index < 0 { length + index } else { index };
    match usize::try_from(position)
        .ok()
        .and_then(|position| items.get(position))
    {
        Some(item) => Ok(Some(item)),
        None => Err(OutOfBounds {
            index,
            length: items.len(),
        }),
    }
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let Value::Array(items) = value else {
        return Vec::new();
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let clamp = |index: i64| {
        let position = if index < 0 { length + index } else { index };
        usize::try_from(position.clamp(0, length)).unwrap_or(0)
    };
    let (from, to) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(length)));
    let step = usize::try_from(step).unwrap_or(1);
    items
        .get(from..to)
        .unwrap_or_default()
        .iter()
        .step_by(step)
        .collect()
}

fn passes(filter: &Filter, root: &Value, current: &Value) -> Result<bool, OutOfBounds> {
    Ok(match filter {
        Filter::Exists(operand) => operand_value(operand, root, current)?.is_some(),
        Filter::Compare(left, comparison, right) => {
            let left = operand_value(left, root, current)?;
            let right = operand_value(right, root, current)?;
            match (left, right) {
                (Some(left), Some(right)) => compare(left, *comparison, right),
                _ => false,
            }
        }
    })
}

fn operand_value<'a>(
    operand: &'a Operand,
    root: &'a Value,
    current: &'a Value,
) -> Result<Option<&'a Value>, OutOfBounds> {
    match operand {
        Operand::Literal(value) => Ok(Some(value)),
        Operand::Path(path) => Ok(find(path, root, current)?.into_iter().next()),
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn display(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
