//! Reads an order date in each of the forms that producers write. Pure.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use serde_json::Value;

/// Java leaves out seconds that are zero; a fraction may have up to nine digits.
const LOCAL_FORMATS: [&str; 3] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f"];
/// What a MySQL `datetime` column can hold.
const YEARS: std::ops::RangeInclusive<i32> = 1000..=9999;

/// The local date and time, or what is wrong with the value.
///
/// Taken are: ISO text with or without seconds, fraction and zone (a zone is converted to UTC); a number, the
/// microseconds since the epoch (Debezium's MicroTimestamp, the 2019 example); Jackson's array of year, month,
/// day, hour, minute, second and nanosecond, the last two optional.
pub(super) fn read(value: &Value) -> Result<NaiveDateTime, String> {
    let date = match value {
        Value::String(text) => from_text(text.trim()),
        Value::Number(micros) => {
            micros.as_i64().and_then(DateTime::from_timestamp_micros).map(|date| date.naive_utc())
        }
        Value::Array(parts) => from_parts(parts),
        _ => None,
    };
    // chrono takes a 60th second for a leap second, which no `datetime` column knows.
    let date = date.filter(|date| date.nanosecond() < 1_000_000_000);
    let date =
        date.ok_or("neither an ISO date and time, nor microseconds since the epoch, nor an array")?;
    if !YEARS.contains(&date.year()) {
        return Err(format!("the year is not within {} to {}", YEARS.start(), YEARS.end()));
    }
    Ok(date)
}

fn from_text(text: &str) -> Option<NaiveDateTime> {
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Some(zoned.naive_utc());
    }
    let local = text.strip_suffix('Z').unwrap_or(text);
    LOCAL_FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(local, format).ok())
}

fn from_parts(parts: &[Value]) -> Option<NaiveDateTime> {
    let numbers = parts.iter().map(|part| part.as_i64()).collect::<Option<Vec<i64>>>()?;
    let (date, second, nanosecond) = match numbers[..] {
        [year, month, day, hour, minute] => ([year, month, day, hour, minute], 0, 0),
        [year, month, day, hour, minute, second] => ([year, month, day, hour, minute], second, 0),
        [year, month, day, hour, minute, second, nanosecond] => {
            ([year, month, day, hour, minute], second, nanosecond)
        }
        _ => return None,
    };
    let [year, month, day, hour, minute] = date;
    let part = |number: i64| u32::try_from(number).ok();
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, part(month)?, part(day)?)?.and_hms_nano_opt(
        part(hour)?,
        part(minute)?,
        part(second)?,
        part(nanosecond)?,
    )
}
