//! Literals of options, read as Connect's `Values` reads them: null, true and false, numbers in the narrowest type,
//! dates and times, or text. Arrays and maps stay text.

use std::sync::Arc;

use crate::data::{Decimal, Schema, Type, Value, logical};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// What a literal stands for, and its schema; null has none.
pub(crate) fn read(text: &str) -> (Option<Arc<Schema>>, Value<'static>) {
    let trimmed = text.trim();
    match trimmed {
        // Nothing but blanks stays as it is.
        "" => plain(Type::String, Value::String(text.to_owned().into())),
        "null" => (None, Value::Null),
        "true" => plain(Type::Boolean, Value::Boolean(true)),
        "false" => plain(Type::Boolean, Value::Boolean(false)),
        _ => temporal(trimmed)
            .or_else(|| number(trimmed))
            .unwrap_or_else(|| plain(Type::String, Value::String(trimmed.to_owned().into()))),
    }
}

fn plain(kind: Type, value: Value<'static>) -> (Option<Arc<Schema>>, Value<'static>) {
    (Some(Arc::new(Schema::new(kind))), value)
}

/// Numbers without a fraction are integers however they are written; others have 32 bits where these reach.
fn number(text: &str) -> Option<(Option<Arc<Schema>>, Value<'static>)> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-')) {
        return None;
    }
    let decimal: Decimal = text.parse().ok()?;
    let stripped = decimal.stripped();
    // No integer has more digits.
    if (-19..=0).contains(&stripped.scale())
        && let Ok(whole) = stripped.rescaled(0).to_plain_string().parse::<i64>()
    {
        return Some(integer(whole));
    }
    let double = decimal.to_f64();
    let float = double as f32;
    if decimal.scale() != 0 && float.is_finite() {
        // Read anew: a way over 64 bits would round twice.
        let float = text.parse().unwrap_or(float);
        return Some(plain(Type::Float32, Value::Float32(float)));
    }
    if decimal.scale() != 0 && double.is_finite() {
        return Some(plain(Type::Float64, Value::Float64(double)));
    }
    let schema = Schema::new(Type::Bytes)
        .named(logical::DECIMAL, 1)
        .with_parameter("scale", &decimal.scale().to_string());
    Some((Some(Arc::new(schema)), Value::Decimal(decimal)))
}

fn integer(whole: i64) -> (Option<Arc<Schema>>, Value<'static>) {
    if let Ok(whole) = whole.try_into() {
        plain(Type::Int8, Value::Int8(whole))
    } else if let Ok(whole) = whole.try_into() {
        plain(Type::Int16, Value::Int16(whole))
    } else if let Ok(whole) = whole.try_into() {
        plain(Type::Int32, Value::Int32(whole))
    } else {
        plain(Type::Int64, Value::Int64(whole))
    }
}

/// `2020-02-29`, `13:14:15.123Z` and both with a `T` between them.
fn temporal(text: &str) -> Option<(Option<Arc<Schema>>, Value<'static>)> {
    let named = |kind, name: &str, millis| {
        let schema = Schema::new(kind).named(name, 1);
        (Some(Arc::new(schema)), Value::Date(millis))
    };
    if let Some((date, time)) = text.split_once('T') {
        let millis = date_millis(date)? + time_millis(time)?;
        return Some(named(Type::Int64, logical::TIMESTAMP, millis));
    }
    if let Some(millis) = time_millis(text) {
        return Some(named(Type::Int32, logical::TIME, millis));
    }
    date_millis(text).map(|millis| named(Type::Int32, logical::DATE, millis))
}

fn date_millis(text: &str) -> Option<i64> {
    let [year, month, day] = fields(text, b"dddd-dd-dd")?[..] else { return None };
    let before_march = i64::from(month <= 2);
    let year = year - before_march;
    let day_of_year = (153 * (month + 12 * before_march - 3) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (1..=12).contains(&month).then_some((year * 365 + leap_days + day_of_year - 719_468) * DAY)
}

fn time_millis(text: &str) -> Option<i64> {
    let [hour, minute, second, millis] = fields(text, b"dd:dd:dd.dddZ")?[..] else { return None };
    Some(((hour * 60 + minute) * 60 + second) * 1000 + millis)
}

/// The numbers of a text in the form of a pattern, where `d` is a digit.
fn fields(text: &str, pattern: &[u8]) -> Option<Vec<i64>> {
    let fits =
        |(byte, form): (&u8, &u8)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form };
    if text.len() != pattern.len() || !text.as_bytes().iter().zip(pattern).all(fits) {
        return None;
    }
    let digits =
        text.split(|next: char| !next.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_narrow_as_they_can_be() {
        let values =
            ["1", "128", "1e3", "1.0", "1.5", "-40000", "3000000000"].map(|text| read(text).1);
        assert_eq!(
            values,
            [
                Value::Int8(1),
                Value::Int16(128),
                Value::Int16(1000),
                Value::Int8(1),
                Value::Float32(1.5),
                Value::Int32(-40_000),
                Value::Int64(3_000_000_000),
            ]
        );
    }

    #[test]
    fn dates_and_times_are_told_by_their_form() {
        assert_eq!(read("2020-02-29").1, Value::Date(1_582_934_400_000));
        assert_eq!(read("13:14:15.123Z").1, Value::Date(47_655_123));
        assert_eq!(read("2020-02-29T13:14:15.123Z").1, Value::Date(1_582_982_055_123));
    }

    #[test]
    fn the_rest_is_text_without_blanks_around_it() {
        assert_eq!(read(" x ").1, Value::text("x"));
        assert_eq!(read("0x10").1, Value::text("0x10"));
        assert_eq!(read("null"), (None, Value::Null));
    }
}
