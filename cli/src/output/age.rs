//! Durations and ages as kubectl writes them: `5s`, `2m30s`, `3h`, `2d4h`, `45d`.
//!
//! Pure; the present is an argument.

use jiff::Timestamp;
use serde_json::Value;

/// The time since `text` (RFC 3339) in kubectl's short form, `<unknown>` where there is none.
pub(crate) fn since(text: &Value, now: Timestamp) -> String {
    match text.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(then) => human(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in kubectl's short form (apimachinery's `HumanDuration`).
pub(crate) fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks differ a little between machines; more than that is not an age.
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => pair(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn ages_get_coarser_as_they_grow() {
        let ages: Vec<String> = [
            -5,
            0,
            119,
            120,
            125,
            599,
            600,
            10_799,
            10_800,
            10_860,
            28_800,
            172_799,
            172_800,
            176_400,
            691_200,
            63_072_000,
            400_000_000,
        ]
        .map(human)
        .to_vec();
        expect_test::expect!["<invalid> 0s 119s 2m 2m5s 9m59s 10m 179m 3h 3h1m 8h 47h 2d 2d1h 8d 2y 12y"]
            .assert_eq(&ages.join(" "));
    }
}
