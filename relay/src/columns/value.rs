//! Values of columns, from PostgreSQL's text form.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use event_router::data::{Decimal, Struct, Value};

use super::kind::Kind;
use super::modes::{BinaryMode, DecimalMode, TimePrecisionMode, ValueModes};
use super::schema::variable_scale_decimal;
use super::{KnownColumn, date, fallback, geometry, hstore, interval};

/// Reads text by the connector's modes.
pub(super) struct Converter<'m> {
    pub(super) modes: &'m ValueModes,
}

impl Converter<'_> {
    /// What stands for a null that was sent.
    pub(super) fn null(column: &KnownColumn, _modes: &ValueModes) -> Value<'static> {
        if column.schema.optional {
            return Value::Null;
        }
        // A column that must not be null has none, but a deleted row shows only its key: the rest reads as empty.
        column.schema.default.clone().unwrap_or_else(|| fallback(column.schema.kind))
    }

    /// The value of a text. What Debezium cannot convert becomes null with a warning there
    /// (`event.converting.failure.handling.mode`); what it cannot read stops it, which is an error here.
    pub(super) fn text<'r>(&self, kind: &Kind, text: &'r str) -> Result<Value<'r>, String> {
        let malformed = || "its text is not in the form of its type".to_owned();
        Ok(match kind {
            Kind::Boolean => Value::Boolean(matches!(text, "t" | "true")),
            Kind::Int16 => Value::Int16(text.parse().map_err(|_| malformed())?),
            Kind::Int32 => Value::Int32(text.parse().map_err(|_| malformed())?),
            Kind::Int64 => Value::Int64(text.parse().map_err(|_| malformed())?),
            Kind::Float32 => Value::Float32(text.parse().map_err(|_| malformed())?),
            Kind::Float64 => Value::Float64(text.parse().map_err(|_| malformed())?),
            Kind::Text | Kind::Named(_) | Kind::Enum(_) => Value::String(Cow::Borrowed(text)),
            Kind::Name if self.modes.include_unknown => Value::String(Cow::Borrowed(text)),
            Kind::Name => Value::Null,
            Kind::Bytea => {
                let digits = text.strip_prefix("\\x");
                let bytes = digits.and_then(from_hex).ok_or_else(|| {
                    "bytea is not in hexadecimal: set bytea_output to hex for the relay's user"
                        .to_owned()
                })?;
                self.binary(Cow::Owned(bytes))
            }
            Kind::Opaque => self.binary(Cow::Borrowed(text.as_bytes())),
            Kind::Bit => Value::Boolean(text.contains('1')),
            Kind::Bits(_) => Value::Bytes(Cow::Owned(bits(text))),
            Kind::Numeric { scale, .. } => {
                self.numeric(text, Some(*scale)).ok_or_else(malformed)?
            }
            Kind::VariableNumeric => self.numeric(text, None).ok_or_else(malformed)?,
            Kind::Money => self.money(text).ok_or_else(malformed)?,
            Kind::Date => self.date(text).ok_or_else(malformed)?,
            Kind::Time(precision) => self.time(text, *precision).ok_or_else(malformed)?,
            Kind::TimeTz => time_with_zone(text).ok_or_else(malformed)?,
            Kind::Timestamp(precision) => self.timestamp(text, *precision).ok_or_else(malformed)?,
            Kind::TimestampTz(precision) => {
                timestamp_with_zone(text, *precision).ok_or_else(malformed)?
            }
            Kind::Interval => interval::value(text, self.modes.interval).ok_or_else(malformed)?,
            Kind::Hstore => hstore::value(text, self.modes.hstore).ok_or_else(malformed)?,
            Kind::Point
            | Kind::Box
            | Kind::Segment
            | Kind::Path
            | Kind::Polygon
            | Kind::Circle
            | Kind::Line => geometry::value(kind, text).ok_or_else(malformed)?,
            Kind::Array(element) => self.array(element, text)?,
            Kind::Valueless(_) => Value::Null,
        })
    }

    pub(super) fn binary<'r>(&self, bytes: Cow<'r, [u8]>) -> Value<'r> {
        let text = match self.modes.binary {
            BinaryMode::Bytes => return Value::Bytes(bytes),
            BinaryMode::Base64 => STANDARD.encode(&bytes),
            BinaryMode::Base64UrlSafe => URL_SAFE.encode(&bytes),
            BinaryMode::Hex => to_hex(&bytes),
        };
        Value::String(Cow::Owned(text))
    }

    /// A number; `scale` is none for numbers that carry their own.
    fn numeric(&self, text: &str, scale: Option<i32>) -> Option<Value<'static>> {
        let decimal: Decimal = match text {
            "NaN" | "Infinity" | "-Infinity" => return Some(self.special_number(text)),
            text => text.parse().ok()?,
        };
        Some(self.decimal(&decimal, scale))
    }

    pub(super) fn decimal(&self, decimal: &Decimal, scale: Option<i32>) -> Value<'static> {
        let scaled = scale.map(|scale| decimal.rescaled(scale));
        match (self.modes.decimal, scaled) {
            (DecimalMode::Double, scaled) => {
                Value::Float64(scaled.as_ref().unwrap_or(decimal).to_f64())
            }
            (DecimalMode::String, scaled) => {
                Value::String(Cow::Owned(scaled.as_ref().unwrap_or(decimal).to_plain_string()))
            }
            (DecimalMode::Precise, Some(scaled)) => Value::Decimal(scaled),
            (DecimalMode::Precise, None) => variable_scale(decimal),
        }
    }

    fn special_number(&self, text: &str) -> Value<'static> {
        match (self.modes.decimal, text) {
            // Connect's decimals know no such numbers: Debezium warns and writes null.
            (DecimalMode::Precise, _) => Value::Null,
            (DecimalMode::Double, "NaN") => Value::Float64(f64::NAN),
            (DecimalMode::Double, "Infinity") => Value::Float64(f64::INFINITY),
            (DecimalMode::Double, _) => Value::Float64(f64::NEG_INFINITY),
            (DecimalMode::String, "NaN") => Value::text("NAN"),
            (DecimalMode::String, "Infinity") => Value::text("POSITIVE_INFINITY"),
            (DecimalMode::String, _) => Value::text("NEGATIVE_INFINITY"),
        }
    }

    /// `$1,234.56`, `-$1.00`, `($1.00)`.
    fn money(&self, text: &str) -> Option<Value<'static>> {
        let negative = text.starts_with(['-', '(']);
        let digits: String = text
            .chars()
            .filter(|character| character.is_ascii_digit() || *character == '.')
            .collect();
        let sign = if negative { "-" } else { "" };
        let amount: Decimal = format!("{sign}{digits}").parse().ok()?;
        Some(match self.modes.decimal {
            DecimalMode::Precise => {
                Value::Decimal(amount.rescaled(self.modes.money_fraction_digits))
            }
            DecimalMode::Double => Value::Float64(amount.to_f64()),
            DecimalMode::String => Value::String(Cow::Owned(amount.to_plain_string())),
        })
    }

    fn date(&self, text: &str) -> Option<Value<'static>> {
        let days = match text {
            date::INFINITY => i64::from(date::DATE_INFINITY),
            date::MINUS_INFINITY => i64::from(date::DATE_MINUS_INFINITY),
            text => date::days(text)?,
        };
        self.date_of(days)
    }

    pub(super) fn date_of(&self, days: i64) -> Option<Value<'static>> {
        /// Milliseconds of a day.
        const DAY: i64 = 86_400_000;
        Some(match self.modes.time_precision {
            TimePrecisionMode::IsoString => {
                Value::String(Cow::Owned(format!("{}Z", date::iso_date(days))))
            }
            // Java's int: the infinities of arrays are beyond it.
            TimePrecisionMode::Connect => Value::Date(i64::from(days as i32) * DAY),
            _ => Value::Int32(days as i32),
        })
    }

    fn time(&self, text: &str, precision: i32) -> Option<Value<'static>> {
        date::time_of_day(text).and_then(|micros| self.time_of(micros, precision))
    }

    pub(super) fn time_of(&self, micros: i64, precision: i32) -> Option<Value<'static>> {
        Some(match self.modes.time_precision {
            TimePrecisionMode::IsoString => {
                // A clock has no 24:00.
                let time = date::iso_time(micros % date::DAY_MICROSECONDS, None);
                Value::String(Cow::Owned(format!("{time}Z")))
            }
            TimePrecisionMode::Connect => Value::Date(micros / 1000),
            TimePrecisionMode::Nanoseconds => Value::Int64(micros.checked_mul(1000)?),
            TimePrecisionMode::Adaptive if precision <= 3 => {
                Value::Int32(i32::try_from(micros / 1000).ok()?)
            }
            _ => Value::Int64(micros),
        })
    }

    fn timestamp(&self, text: &str, precision: i32) -> Option<Value<'static>> {
        let micros = match text {
            date::INFINITY => i64::MAX,
            date::MINUS_INFINITY => i64::MIN,
            text => date::timestamp(text)?,
        };
        self.timestamp_of(micros, precision)
    }

    pub(super) fn timestamp_of(&self, micros: i64, precision: i32) -> Option<Value<'static>> {
        use TimePrecisionMode as Mode;
        Some(match self.modes.time_precision {
            Mode::IsoString => {
                Value::String(Cow::Owned(format!("{}Z", date::iso_timestamp(micros, None))))
            }
            Mode::Connect => Value::Date(micros.div_euclid(1000)),
            Mode::Nanoseconds => {
                let is_infinite = matches!(micros, i64::MIN | i64::MAX);
                match micros.checked_mul(1000) {
                    Some(nanos) => Value::Int64(nanos),
                    None if is_infinite => Value::Int64(micros),
                    // About 292 years from 1970: Debezium warns and writes null.
                    None => Value::Null,
                }
            }
            Mode::Adaptive | Mode::AdaptiveTimeMicroseconds if precision <= 3 => {
                Value::Int64(micros.div_euclid(1000))
            }
            _ => Value::Int64(micros),
        })
    }
}

/// A struct of scale and unscaled bytes, without trailing zeros.
fn variable_scale(decimal: &Decimal) -> Value<'static> {
    let stripped = decimal.stripped();
    let stripped = if stripped.scale() < 0 { stripped.rescaled(0) } else { stripped };
    let values =
        vec![Value::Int32(stripped.scale()), Value::Bytes(Cow::Owned(stripped.unscaled_bytes()))];
    let schema = Arc::new(variable_scale_decimal().with_optional(true));
    Value::Struct(Box::new(Struct::from_parts(schema, values)))
}

/// UTC time of day, `11:14:15.123456Z`. The end of a day is the start of the next, but for that of UTC itself.
fn time_with_zone(text: &str) -> Option<Value<'static>> {
    let (micros, offset) = date::time_with_zone(text)?;
    if micros == date::DAY_MICROSECONDS && offset == 0 {
        return Some(Value::text("24:00:00Z"));
    }
    let micros = (micros - offset).rem_euclid(date::DAY_MICROSECONDS);
    Some(Value::String(Cow::Owned(format!("{}Z", date::iso_time(micros, None)))))
}

/// UTC timestamp with the column's number of fraction digits.
fn timestamp_with_zone(text: &str, precision: i32) -> Option<Value<'static>> {
    if matches!(text, date::INFINITY | date::MINUS_INFINITY) {
        return Some(Value::String(Cow::Owned(text.to_owned())));
    }
    date::timestamp_with_zone(text).map(|micros| zoned_timestamp(micros, precision))
}

pub(super) fn zoned_timestamp(micros: i64, precision: i32) -> Value<'static> {
    let digits = usize::try_from(precision).ok().filter(|digits| *digits > 0);
    Value::String(Cow::Owned(format!("{}Z", date::iso_timestamp(micros, digits))))
}

/// Bits as bytes, least significant first, without zero bytes at the end.
pub(super) fn bits(text: &str) -> Vec<u8> {
    let mut bytes = vec![0_u8; text.len().div_ceil(8)];
    for (index, bit) in text.bytes().rev().enumerate() {
        if let Some(byte) = bytes.get_mut(index / 8) {
            *byte |= u8::from(bit == b'1') << (index % 8);
        }
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// Bytes of hexadecimal digits.
pub(super) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
