//! Elements of arrays. Debezium has them read by the JDBC driver, in Java's older classes: times of day end at
//! milliseconds, days before 1582-10-15 are those of the Julian calendar, and dates lose their era.

use std::borrow::Cow;

use event_router::data::Value;

use super::kind::Kind;
use super::modes::TimePrecisionMode as Mode;
use super::value::{Converter, zoned_timestamp};
use super::{array, date};

/// Days of 1970-01-01 to the dates that the driver takes for PostgreSQL's infinities.
const DAYS_INFINITY: i64 = 106_751_991_166;
const DAYS_MINUS_INFINITY: i64 = 106_748_361_128;

/// The driver's milliseconds for PostgreSQL's infinities.
const MILLIS_INFINITY: i64 = 9_223_372_036_825_200_000;
const MILLIS_MINUS_INFINITY: i64 = -9_223_372_036_832_400_000;

/// What a timestamp with time zone becomes that PostgreSQL calls `-infinity`.
const ZONED_MINUS_INFINITY: &str = "+292269055-12-02T23:00:00.000000Z";

impl Converter<'_> {
    /// The value of an array; null where an element cannot be had, since Debezium leaves out all of them then.
    pub(super) fn array<'r>(&self, element: &Kind, text: &str) -> Result<Value<'r>, String> {
        let texts = array::parse(text).ok_or("its text is not that of an array")?;
        let mut elements = Vec::with_capacity(texts.len());
        for text in texts {
            let value = match text {
                Some(text) if is_special_number(element, &text) => return Ok(Value::Null),
                Some(text) => self.element(element, &text)?,
                None if element.is_required_in_array() => return Ok(Value::Null),
                // Null, and Debezium's null for an array inside of the array.
                None => Value::Null,
            };
            elements.push(value);
        }
        Ok(Value::Array(elements))
    }

    fn element(&self, kind: &Kind, text: &str) -> Result<Value<'static>, String> {
        let value = match kind {
            Kind::Date => days(text).and_then(|days| self.date_of(days)),
            Kind::Time(precision) => {
                let millis = date::time_of_day(text).map(|micros| micros / 1000 * 1000);
                // The driver's clock has no 24:00.
                millis.and_then(|micros| self.time_of(micros % date::DAY_MICROSECONDS, *precision))
            }
            Kind::Timestamp(precision) => self.timestamp_element(text, *precision),
            Kind::TimestampTz(precision) => zoned_element(text, *precision),
            kind => return self.text(kind, text).map(Value::into_owned),
        };
        value.ok_or_else(|| "the text of an element is not in the form of its type".to_owned())
    }

    fn timestamp_element(&self, text: &str, precision: i32) -> Option<Value<'static>> {
        let (millis, micros) = match text {
            date::INFINITY => (MILLIS_INFINITY, i64::MAX),
            date::MINUS_INFINITY => (MILLIS_MINUS_INFINITY, i64::MIN),
            text => {
                let micros = date::timestamp_by(date::hybrid_days, text)?;
                return self.timestamp_of(micros, precision);
            }
        };
        Some(match self.modes.time_precision {
            Mode::Connect => Value::Date(millis),
            Mode::IsoString => {
                let (days, time) = (millis.div_euclid(DAY_MILLIS), millis.rem_euclid(DAY_MILLIS));
                let (date, time) = (date::iso_date(days), date::iso_time(time * 1000, None));
                Value::String(Cow::Owned(format!("{date}T{time}Z")))
            }
            _ => return self.timestamp_of(micros, precision),
        })
    }
}

/// Milliseconds of a day.
const DAY_MILLIS: i64 = 86_400_000;

/// Numbers that the driver cannot read in an array.
fn is_special_number(element: &Kind, text: &str) -> bool {
    matches!(element, Kind::Numeric { .. } | Kind::VariableNumeric)
        && matches!(text, "NaN" | "Infinity" | "-Infinity")
}

fn days(text: &str) -> Option<i64> {
    match text {
        date::INFINITY => Some(DAYS_INFINITY),
        date::MINUS_INFINITY => Some(DAYS_MINUS_INFINITY),
        text => date::days_without_era(text),
    }
}

fn zoned_element(text: &str, precision: i32) -> Option<Value<'static>> {
    match text {
        date::INFINITY => Some(Value::text(date::INFINITY)),
        date::MINUS_INFINITY => Some(Value::text(ZONED_MINUS_INFINITY)),
        text => {
            let micros = date::timestamp_with_zone_by(date::days_without_era, text)?;
            Some(zoned_timestamp(micros, precision))
        }
    }
}
