//! Amounts such as `500m` and `64Mi`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by the name of the resource.
pub type Quantities = BTreeMap<String, Quantity>;

/// The amount in thousandths, rounded up; none when it is not a quantity.
pub(crate) fn parse_milli(quantity: &Quantity) -> Option<i64> {
    let nano = nano(&quantity.0)?;
    i64::try_from(divide_up(nano, 1_000_000)).ok()
}

/// The amount in whole units, rounded up; none when it is not a quantity.
pub fn parse_whole(quantity: &Quantity) -> Option<i64> {
    let nano = nano(&quantity.0)?;
    i64::try_from(divide_up(nano, NANO)).ok()
}

const NANO: i128 = 1_000_000_000;

pub(crate) fn divide_up(amount: i128, by: i128) -> i128 {
    amount.div_euclid(by) + i128::from(amount.rem_euclid(by) != 0)
}

pub(crate) fn nano(text: &str) -> Option<i128> {
    let digits_end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let is_negative = whole.starts_with('-');
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    let value = whole
        .checked_mul(NANO)?
        .checked_add(if is_negative { -fraction } else { fraction })?;
    let (multiply, divide) = factor(suffix)?;
    Some(divide_up(value.checked_mul(multiply)?, divide))
}

fn factor(suffix: &str) -> Option<(i128, i128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const SMALL: [&str; 3] = ["m", "u", "n"];
    let index = |list: &[&str]| {
        list.iter()
            .position(|name| *name == suffix)
            .and_then(|at| u32::try_from(at + 1).ok())
    };
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some(power) = index(&BINARY) {
        return Some((1024_i128.pow(power), 1));
    }
    if let Some(power) = index(&DECIMAL) {
        return Some((1000_i128.pow(power), 1));
    }
    if let Some(power) = index(&SMALL) {
        return Some((1, 1000_i128.pow(power)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        let milli = ["1", "500m", "0.1", "1.5", "100u", "2k", "1e3", "-1"].map(|q| parse_milli(&quantity(q)));
        assert_eq!(
            milli,
            [1000, 500, 100, 1500, 1, 2_000_000, 1_000_000, -1000].map(Some)
        );
        let whole = ["64Mi", "1Gi", "1.5Ki", "128974848", "1E"].map(|q| parse_whole(&quantity(q)));
        assert_eq!(
            whole,
            [
                67_108_864,
                1_073_741_824,
                1536,
                128_974_848,
                1_000_000_000_000_000_000
            ]
            .map(Some)
        );
        assert_eq!(
            ["", "x", "1Zi", "1..2", "99999999999E"].map(|q| parse_whole(&quantity(q))),
            [None; 5]
        );
    }
}
