//! Money: a decimal amount, exact from the digits in a request to the digits in an event. Pure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Digits after the decimal point: cents.
pub(crate) const SCALE_MAX: u32 = 2;

/// Digits before the decimal point. With the two after it every amount fits `Decimal`'s 96 bits (28 digits are always
/// exact), and so does the sum of two: an overflow is noticed, never rounded.
pub(crate) const INTEGER_DIGITS_MAX: u32 = 26;

/// Longest text that is looked at. The longest sensible amount has 29 characters; leading zeros and an exponent get the rest.
const TEXT_BYTES_MAX: usize = 64;

/// An amount of money, not negative, with at most two decimals. `10` and `10.00` are equal but keep their digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(Decimal);

/// Why a text is no amount of money. Each message completes the sentence "totalPrice ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum MoneyError {
    #[error("must be a decimal number such as 39.98")]
    NotANumber,
    #[error("must not be negative")]
    Negative,
    #[error("must have at most {SCALE_MAX} decimals")]
    TooManyDecimals,
    #[error("must have at most {INTEGER_DIGITS_MAX} digits before the decimal point")]
    TooLarge,
    #[error("must be written with at most {TEXT_BYTES_MAX} characters")]
    TooLong,
}

impl Money {
    /// Nothing to pay.
    pub(crate) const ZERO: Money = Money(Decimal::ZERO);

    /// The sum, with the larger scale of the two; `None` where it has more digits than an amount may have.
    pub(crate) fn checked_add(self, other: Money) -> Option<Money> {
        let sum = self.0.checked_add(other.0)?;
        (sum.mantissa() < mantissa_end(sum.scale())).then_some(Money(sum))
    }
}

/// The first mantissa that is too large at this scale.
fn mantissa_end(scale: u32) -> i128 {
    10_i128.pow(INTEGER_DIGITS_MAX + scale)
}

/// Reads a JSON number's text: digits, an optional fraction, an optional exponent. The value never passes through a
/// binary float.
impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(MoneyError::TooLong);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, read_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (integer, fraction) = match number.split_once('.') {
            Some((_, "")) => return Err(MoneyError::NotANumber),
            Some(parts) => parts,
            None => (number, ""),
        };
        let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if integer.is_empty() || !digits_only(integer) || !digits_only(fraction) {
            return Err(MoneyError::NotANumber);
        }
        // At most 64 digits, so the length fits.
        let scale = (fraction.len() as i64) - i64::from(exponent);
        // Before the digits are counted: of 0.1000000000000000055511151231257827 the decimals are too many.
        if scale > i64::from(SCALE_MAX) {
            return Err(MoneyError::TooManyDecimals);
        }
        let mantissa: i128 =
            format!("{integer}{fraction}").parse().map_err(|_| MoneyError::TooLarge)?;
        if negative && mantissa != 0 {
            return Err(MoneyError::Negative);
        }
        from_parts(mantissa, scale)
    }
}

/// The digits behind the `e`, which may have a sign.
fn read_exponent(text: &str) -> Result<i32, MoneyError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    text.parse().map_err(|_| {
        if text.starts_with('-') { MoneyError::TooManyDecimals } else { MoneyError::TooLarge }
    })
}

/// The amount `mantissa * 10^-scale`, where scale is at most [`SCALE_MAX`] and may be negative (1e3).
fn from_parts(mantissa: i128, scale: i64) -> Result<Money, MoneyError> {
    let (mantissa, scale) = match u32::try_from(scale) {
        Ok(scale) => (mantissa, scale),
        Err(_) if mantissa == 0 => (0, 0),
        Err(_) => {
            let zeros = u32::try_from(-scale).map_err(|_| MoneyError::TooLarge)?;
            let factor = 10_i128.checked_pow(zeros).ok_or(MoneyError::TooLarge)?;
            (mantissa.checked_mul(factor).ok_or(MoneyError::TooLarge)?, 0)
        }
    };
    if mantissa >= mantissa_end(scale) {
        return Err(MoneyError::TooLarge);
    }
    Decimal::try_from_i128_with_scale(mantissa, scale).map(Money).map_err(|_| MoneyError::TooLarge)
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A JSON number with exactly these digits. Only serde_json can write it: a raw value is how it takes a number that is
/// neither an integer nor a float.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl PartialSchema for Money {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Number))
            .description(Some("Decimal amount, not negative, at most two decimals."))
            .minimum(Some(0))
            .examples([serde_json::json!(39.98)])
            .into()
    }
}

impl ToSchema for Money {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Money")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, MoneyError>) {
        let amount = text.parse::<Money>();
        assert_eq!(amount.map(|amount| amount.to_string()), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn an_amount_keeps_its_digits() {
        for text in
            ["0", "0.00", "5", "10", "10.0", "10.00", "0.10", "39.98", "12345678901234567.89"]
        {
            check(text, Ok(text));
        }
        check("99999999999999999999999999.99", Ok("99999999999999999999999999.99"));
    }

    #[test]
    fn an_exponent_is_worked_out_exactly() {
        check("1E+3", Ok("1000"));
        check("1.5e1", Ok("15"));
        check("3998e-2", Ok("39.98"));
        check("0e999999", Ok("0"));
        check("1e25", Ok("10000000000000000000000000"));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_reason() {
        for text in
            ["", "-", "abc", "1,5", "1.", ".5", "1.2.3", "1e", "1e1.5", "NaN", "+1", "0x10", " 1"]
        {
            check(text, Err(MoneyError::NotANumber));
        }
        check("-0.01", Err(MoneyError::Negative));
        check("-0.00", Ok("0.00"));
        for text in [
            "10.005",
            "10.000",
            "1e-3",
            "1e-2147483648",
            "1e-99999999999",
            "0.1000000000000000055511151231257827021181583404541015625",
        ] {
            check(text, Err(MoneyError::TooManyDecimals));
        }
        for text in [
            "1e26",
            "100000000000000000000000000",
            "1e2147483647",
            "1e99999999999",
            &"9".repeat(64),
        ] {
            check(text, Err(MoneyError::TooLarge));
        }
        check(&"9".repeat(65), Err(MoneyError::TooLong));
    }

    #[test]
    fn a_sum_is_exact_or_refused() {
        let money = |text: &str| text.parse::<Money>().unwrap();
        assert_eq!(money("0.1").checked_add(money("0.20")).unwrap().to_string(), "0.30");
        assert_eq!(money("39.98").checked_add(money("29.99")).unwrap().to_string(), "69.97");
        let most = money("99999999999999999999999999.99");
        assert_eq!(most.checked_add(money("0.01")), None);
        assert_eq!(most.checked_add(most), None);
        assert_eq!(most.checked_add(Money::ZERO), Some(most));
    }

    #[test]
    fn json_carries_the_digits_as_a_number() {
        let amount: Money = "12345678901234567.80".parse().unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), "12345678901234567.80");
    }
}
