//! Quantities of resources: `100m`, `1.5Gi`, `2e3`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// As the field of an object.
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityField;

/// A number with the kind of suffix in which it is written.
///
/// Exact in billionths; Kubernetes keeps no more than that either.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

const NANO: i128 = 1_000_000_000;
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::Decimal,
    };

    /// Reads a quantity; finer digits than billionths are rounded up.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (format, scale) = scale_of(suffix)?;
        let nanos = to_nanos(whole, fraction, scale);
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }

    /// Reads a field; `None` when it is no quantity.
    pub fn of(field: &QuantityField) -> Option<Self> {
        Self::parse(&field.0).ok()
    }

    /// The named entry of requests, limits or capacities; nothing when it is missing or no quantity.
    pub fn get(list: Option<&BTreeMap<String, QuantityField>>, name: &str) -> Option<Self> {
        list.and_then(|list| list.get(name)).and_then(Self::of)
    }

    /// A number of thousandths, as for processors.
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::Decimal,
        }
    }

    /// A whole number.
    pub fn from_integer(number: i64) -> Self {
        Self {
            nanos: i128::from(number) * NANO,
            format: Format::Decimal,
        }
    }

    /// A number of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self {
            nanos: i128::from(bytes) * NANO,
            format: Format::Binary,
        }
    }

    /// Thousandths, rounded up.
    pub fn milli(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }

    /// Whole units, rounded up.
    pub fn value(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }

    /// How often `unit` fits in, rounded up; none when there is no such number.
    pub fn in_units_of(self, unit: Self) -> Option<i64> {
        (unit.nanos > 0).then(|| clamp(div_ceil(self.nanos, unit.nanos)))
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    /// In canonical form, for a field.
    pub fn to_field(self) -> QuantityField {
        QuantityField(self.to_string())
    }
}

/// The text in canonical form, or as it is when it is no quantity.
pub fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|_| text.to_owned(), |quantity| quantity.to_string())
}

/// Puts every entry into canonical form; what is no quantity stays for validation to refuse.
pub fn make_canonical(list: Option<&mut BTreeMap<String, QuantityField>>) {
    for amount in list.into_iter().flat_map(BTreeMap::values_mut) {
        amount.0 = canonical(&amount.0);
    }
}

#[derive(Clone, Copy)]
enum Scale {
    PowerOfTen(i32),
    PowerOf1024(u32),
}

fn scale_of(suffix: &str) -> Result<(Format, Scale), ParseQuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Decimal, Scale::PowerOfTen(*power)));
    }
    if let Some(power) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((
            Format::Binary,
            Scale::PowerOf1024(u32::try_from(power).unwrap_or(0)),
        ));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
    let exponent: i32 = exponent.parse().map_err(|_| ParseQuantityError)?;
    Ok((Format::Exponent, Scale::PowerOfTen(exponent)))
}

/// `whole.fraction × scale` in billionths, rounded up, capped at what fits into an `i64` of units.
fn to_nanos(whole: &str, fraction: &str, scale: Scale) -> i128 {
    const MAX: i128 = (i64::MAX as i128) * NANO;
    let digits = whole.bytes().chain(fraction.bytes());
    let mut number: i128 = 0;
    for byte in digits {
        let next = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(i128::from(byte - b'0')));
        match next {
            Some(next) if next < i128::MAX / 2048 => number = next,
            _ => return MAX,
        }
    }
    let mut power = 9 - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
    match scale {
        Scale::PowerOfTen(exponent) => power = power.saturating_add(exponent),
        Scale::PowerOf1024(exponent) => match number.checked_mul(1024_i128.pow(exponent)) {
            Some(product) => number = product,
            None => return MAX,
        },
    }
    for _ in 0..power.unsigned_abs().min(80) {
        if power > 0 {
            match number.checked_mul(10) {
                Some(product) => number = product,
                None => return MAX,
            }
        } else {
            number = div_ceil(number, 10);
        }
    }
    number.min(MAX)
}

fn div_ceil(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + i128::from(number.rem_euclid(by) != 0)
}

fn clamp(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 {
            other.format
        } else {
            self.format
        };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self {
            nanos: -other.nanos,
            ..other
        }
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, std::ops::Add::add)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO || self.nanos % NANO != 0;
        if self.format == Format::Binary && !small {
            return self.write_binary(f);
        }
        let (mut number, mut power) = (self.nanos, -9);
        while number % 1000 == 0 && power < 18 {
            number /= 1000;
            power += 3;
        }
        match (self.format, power) {
            (Format::Exponent, 0) => write!(f, "{number}"),
            (Format::Exponent, _) => write!(f, "{number}e{power}"),
            _ => {
                let suffix = DECIMAL
                    .iter()
                    .find(|(_, of)| *of == power)
                    .map_or("", |(name, _)| name);
                write!(f, "{number}{suffix}")
            }
        }
    }
}

impl Quantity {
    fn write_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut power) = (self.nanos / NANO, 0);
        while number % 1024 == 0 && power + 1 < BINARY.len() {
            number /= 1024;
            power += 1;
        }
        write!(f, "{number}{}", BINARY[power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_has_the_largest_suffix_without_fractions() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("100Mi", "100Mi"),
            ("1e3", "1e3"),
            ("1500e-3", "1500e-3"),
            ("12E", "9223372036854775807"),
            ("1E", "1E"),
            ("-1k", "-1k"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("10u", "10u"),
            (
                "99999999999999999999999999999999999999999999",
                "9223372036854775807",
            ),
        ] {
            assert_eq!(super::canonical(text), canonical, "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "", "-", ".", "1.2.3", "1x", "1KiB", "1 Gi", "Gi", "1e", "1ee3", "1mm", "ten",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn they_are_counted_in_units_rounded_up() {
        let count = |amount, unit| {
            let quantity = |text| Quantity::parse(text).unwrap();
            quantity(amount).in_units_of(quantity(unit))
        };
        assert_eq!(count("1500m", "1"), Some(2));
        assert_eq!(count("1500m", "1m"), Some(1500));
        assert_eq!(count("64Mi", "1Ki"), Some(65_536));
        assert_eq!(count("1", "0"), None);
    }

    #[test]
    fn they_compare_and_add_whatever_their_suffix() {
        let quantity = |text| Quantity::parse(text).unwrap();
        assert_eq!(quantity("1"), quantity("1000m"));
        assert!(quantity("1Ki") > quantity("1k"));
        assert!(quantity("-1") < quantity("0"));
        assert_eq!((quantity("1Gi") + quantity("512Mi")).to_string(), "1536Mi");
        assert_eq!((quantity("1") - quantity("250m")).to_string(), "750m");
        assert_eq!(
            [quantity("1Mi"), quantity("1Mi")]
                .into_iter()
                .sum::<Quantity>()
                .to_string(),
            "2Mi"
        );
        assert_eq!(quantity("1.0001").milli(), 1001);
        assert_eq!(quantity("2500m").value(), 3);
        assert_eq!(quantity("1Gi").value(), 1 << 30);
    }
}
