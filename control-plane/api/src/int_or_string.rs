//! Numbers that may be percentages, like a deployment's `maxSurge`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage of a total is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// As for `maxSurge`.
    Up,
    /// As for `maxUnavailable`.
    Down,
}

/// The number that `value` means of `total`; nothing when it is neither a number nor a percentage.
pub fn resolve(value: &IntOrString, total: i32, rounding: Rounding) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent = i64::from(percentage(text)?);
            let hundredths = percent * i64::from(total);
            let number = match rounding {
                Rounding::Up => hundredths.div_euclid(100) + i64::from(hundredths.rem_euclid(100) > 0),
                Rounding::Down => hundredths.div_euclid(100),
            };
            i32::try_from(number).ok()
        }
    }
}

/// The number before the percent sign.
pub fn percentage(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded() {
        let text = |text: &str| IntOrString::String(text.into());
        for (value, total, up, down) in [
            (IntOrString::Int(3), 10, Some(3), Some(3)),
            (text("25%"), 3, Some(1), Some(0)),
            (text("25%"), 4, Some(1), Some(1)),
            (text("25%"), 10, Some(3), Some(2)),
            (text("100%"), 7, Some(7), Some(7)),
            (text("0%"), 7, Some(0), Some(0)),
            (text("25"), 7, None, None),
            (text("-5%"), 7, None, None),
            (text("%"), 7, None, None),
        ] {
            assert_eq!(
                resolve(&value, total, Rounding::Up),
                up,
                "{value:?} of {total} up"
            );
            assert_eq!(
                resolve(&value, total, Rounding::Down),
                down,
                "{value:?} of {total} down"
            );
        }
    }
}
