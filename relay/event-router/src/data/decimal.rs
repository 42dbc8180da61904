//! Java's `BigDecimal`: an integer of any size and a scale.

use std::fmt;
use std::str::FromStr;

/// A decimal number, `digits` × 10^-`scale`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    /// Decimal digits without leading zeros; `0` for zero.
    digits: String,
    scale: i32,
}

/// Text that is not a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number")]
pub struct ParseDecimalError;

impl FromStr for Decimal {
    type Err = ParseDecimalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => {
                (&rest[..at], rest[at + 1..].parse::<i32>().map_err(|_| ParseDecimalError)?)
            }
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
            return Err(ParseDecimalError);
        }
        let scale = i32::try_from(fraction.len()).map_err(|_| ParseDecimalError)?;
        let scale = scale.checked_sub(exponent).ok_or(ParseDecimalError)?;
        Ok(Self::from_digits(negative, &format!("{whole}{fraction}"), scale))
    }
}

impl Decimal {
    fn from_digits(negative: bool, digits: &str, scale: i32) -> Self {
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Self { negative: false, digits: "0".to_owned(), scale };
        }
        Self { negative, digits: digits.to_owned(), scale }
    }

    /// An integer with a scale: `unscaled` × 10^-`scale`.
    #[must_use]
    pub fn from_unscaled(unscaled: i128, scale: i32) -> Self {
        Self::from_digits(unscaled < 0, &unscaled.unsigned_abs().to_string(), scale)
    }

    /// Digits behind the point; negative for trailing zeros that are not written.
    #[must_use]
    pub const fn scale(&self) -> i32 {
        self.scale
    }

    /// Whether the number is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.digits == "0"
    }

    /// The same number with another scale, rounded half up (away from zero) where digits are lost.
    #[must_use]
    pub fn rescaled(&self, scale: i32) -> Self {
        if scale >= self.scale {
            let zeros = usize::try_from(scale.saturating_sub(self.scale)).unwrap_or_default();
            return Self::from_digits(
                self.negative,
                &format!("{}{}", self.digits, "0".repeat(zeros)),
                scale,
            );
        }
        let dropped = usize::try_from(self.scale.saturating_sub(scale)).unwrap_or_default();
        let padded = format!("{:0>width$}", self.digits, width = dropped + 1);
        let (kept, lost) = padded.split_at(padded.len() - dropped);
        let rounded_up = lost.as_bytes().first().is_some_and(|digit| *digit >= b'5');
        let kept = if rounded_up { increment(kept) } else { kept.to_owned() };
        Self::from_digits(self.negative, &kept, scale)
    }

    /// Whether [`Self::rescaled`] to this scale would lose digits that are not zero.
    #[must_use]
    pub fn loses_digits(&self, scale: i32) -> bool {
        let dropped = usize::try_from(self.scale.saturating_sub(scale)).unwrap_or_default();
        let padded = format!("{:0>dropped$}", self.digits);
        padded.bytes().rev().take(dropped).any(|digit| digit != b'0')
    }

    /// The same number without trailing zeros; the scale may become negative. Zero has scale 0.
    #[must_use]
    pub fn stripped(&self) -> Self {
        if self.is_zero() {
            return Self::from_digits(false, "0", 0);
        }
        let stripped = self.digits.trim_end_matches('0');
        let zeros = i32::try_from(self.digits.len() - stripped.len()).unwrap_or_default();
        Self::from_digits(self.negative, stripped, self.scale.saturating_sub(zeros))
    }

    /// Java's `toPlainString`: no exponent.
    #[must_use]
    pub fn to_plain_string(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        if self.scale <= 0 {
            let zeros = usize::try_from(self.scale.unsigned_abs()).unwrap_or_default();
            let zeros = if self.is_zero() { 0 } else { zeros };
            return format!("{sign}{}{}", self.digits, "0".repeat(zeros));
        }
        let scale = usize::try_from(self.scale).unwrap_or_default();
        let padded = format!("{:0>width$}", self.digits, width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        format!("{sign}{whole}.{fraction}")
    }

    /// The nearest 64 bit floating point number.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The unscaled integer in the fewest bytes of two's complement, most significant first
    /// (`BigInteger.toByteArray`).
    #[must_use]
    pub fn unscaled_bytes(&self) -> Vec<u8> {
        let mut bytes = magnitude(&self.digits);
        // The sign needs a bit of its own.
        if bytes.first().is_none_or(|byte| byte & 0x80 != 0) {
            bytes.insert(0, 0);
        }
        if self.negative {
            negate(&mut bytes);
            while bytes.len() > 1 && bytes[0] == 0xff && bytes[1] & 0x80 != 0 {
                bytes.remove(0);
            }
        }
        bytes
    }
}

/// `BigDecimal.toString`: an exponent where the scale is negative or the number very small.
impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit_count = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let exponent = digit_count - 1 - i64::from(self.scale);
        if self.scale >= 0 && exponent >= -6 {
            return formatter.write_str(&self.to_plain_string());
        }
        if self.negative {
            formatter.write_str("-")?;
        }
        let (first, rest) = self.digits.split_at(1);
        formatter.write_str(first)?;
        if !rest.is_empty() {
            write!(formatter, ".{rest}")?;
        }
        if exponent == 0 { Ok(()) } else { write!(formatter, "E{exponent:+}") }
    }
}

fn increment(digits: &str) -> String {
    let mut bytes = digits.as_bytes().to_vec();
    for digit in bytes.iter_mut().rev() {
        if *digit == b'9' {
            *digit = b'0';
        } else {
            *digit += 1;
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    format!("1{}", String::from_utf8_lossy(&bytes))
}

/// Decimal digits as bytes, most significant first.
fn magnitude(digits: &str) -> Vec<u8> {
    const DIGITS_PER_STEP: usize = 9;
    let mut limbs: Vec<u32> = Vec::new();
    for chunk in digits.as_bytes().chunks(DIGITS_PER_STEP) {
        let mut carry = chunk.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let factor = chunk.iter().fold(1_u64, |power, _| power * 10);
        for limb in &mut limbs {
            carry += u64::from(*limb) * factor;
            *limb = low_half(carry);
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(low_half(carry));
        }
    }
    let bytes: Vec<u8> = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes[start..].to_vec()
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes.iter_mut().rev() {
        let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = value;
        carry = overflow;
    }
}
