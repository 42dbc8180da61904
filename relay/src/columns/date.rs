//! Dates and times from PostgreSQL's ISO text, and in Java's ISO text.

/// Days of 1970-01-01 to the ends of time, as Debezium writes PostgreSQL's infinities.
pub(super) const DATE_INFINITY: i32 = 2_146_033_979;
pub(super) const DATE_MINUS_INFINITY: i32 = -2_147_472_691;

/// Microseconds of a day.
pub(super) const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// PostgreSQL's words for the ends of time.
pub(super) const INFINITY: &str = "infinity";
pub(super) const MINUS_INFINITY: &str = "-infinity";

/// First day of the Gregorian calendar, 1582-10-15, in days since 1970.
const GREGORIAN_START: i64 = -141_427;

/// Days since 1970 of `2020-02-29` or `0044-03-15 BC`.
pub(super) fn days(text: &str) -> Option<i64> {
    let (year, month, day) = parts(text)?;
    Some(days_from_civil(year, month, day))
}

/// The same by the calendar of Java's older classes: days before 1582-10-15 are those of the Julian calendar.
pub(super) fn hybrid_days(text: &str) -> Option<i64> {
    let (year, month, day) = parts(text)?;
    let is_julian = (year, month, day) < (1582, 10, 15);
    Some(if is_julian { days_from_julian(year, month, day) } else { days(text)? })
}

/// The same for a date that Java has handed from its older to its newer classes by year, month and day: years before
/// Christ become years after, and the ten days that the calendars skip are counted on.
pub(super) fn days_without_era(text: &str) -> Option<i64> {
    let (year, month, day) = parts(text)?;
    let hybrid = hybrid_days(text)?;
    if hybrid >= GREGORIAN_START {
        return Some(hybrid);
    }
    Some(days_from_civil(if year <= 0 { 1 - year } else { year }, month, day))
}

/// Year, month and day of `2020-02-29` or `0044-03-15 BC`.
fn parts(text: &str) -> Option<(i64, i64, i64)> {
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut parts = text.split('-');
    let year: i64 = digits(parts.next()?)?;
    let month: i64 = digits(parts.next()?)?;
    let day: i64 = digits(parts.next()?)?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // There is no year 0: 1 BC is the year 0 of the calendar that counts on.
    let year = if before_christ { 1 - year } else { year };
    Some((year, month, day))
}

/// Microseconds of a day of `13:14:15.123456`; 24:00 is a whole day.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let hours: i64 = digits(parts.next()?)?;
    let minutes: i64 = digits(parts.next()?)?;
    let seconds: i64 = digits(parts.next()?)?;
    let is_legal = parts.next().is_none() && hours <= 24 && minutes < 60 && seconds <= 60;
    if !is_legal || fraction.len() > 6 {
        return None;
    }
    let micros = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<6}"))? };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Microseconds since 1970 of `2020-02-29 13:14:15.123456`, as it stands.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    timestamp_by(days, text)
}

/// The same, with another reading of the date.
pub(super) fn timestamp_by(days: fn(&str) -> Option<i64>, text: &str) -> Option<i64> {
    let (text, era) = match text.strip_suffix(" BC") {
        Some(text) => (text, " BC"),
        None => (text, ""),
    };
    let (date, time) = text.split_once(' ')?;
    let days = days(&format!("{date}{era}"))?;
    days.checked_mul(DAY_MICROSECONDS)?.checked_add(time_of_day(time)?)
}

/// Microseconds since 1970 UTC of `2020-02-29 13:14:15.123456+02`.
pub(super) fn timestamp_with_zone(text: &str) -> Option<i64> {
    timestamp_with_zone_by(days, text)
}

/// The same, with another reading of the date.
pub(super) fn timestamp_with_zone_by(days: fn(&str) -> Option<i64>, text: &str) -> Option<i64> {
    let (text, era) = match text.strip_suffix(" BC") {
        Some(text) => (text, " BC"),
        None => (text, ""),
    };
    let (text, offset) = split_offset(text)?;
    timestamp_by(days, &format!("{text}{era}"))?.checked_sub(offset)
}

/// A time of day and its offset, both in microseconds, of `13:14:15.123456+02`.
pub(super) fn time_with_zone(text: &str) -> Option<(i64, i64)> {
    let (time, offset) = split_offset(text)?;
    Some((time_of_day(time)?, offset))
}

/// Splits `…+05:30`; the offset in microseconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    let at = text.rfind(['+', '-'])?;
    let (front, offset) = (text.get(..at)?, text.get(at + 1..)?);
    let mut seconds = 0;
    let mut unit = 3600;
    for part in offset.split(':') {
        seconds += digits(part)? * unit;
        unit /= 60;
    }
    let sign = if text.as_bytes().get(at) == Some(&b'-') { -1 } else { 1 };
    Some((front, sign * seconds * 1_000_000))
}

/// `2020-02-29`, with a sign where the year has not four digits, as Java's `ISO_LOCAL_DATE`.
pub(crate) fn iso_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        -9999..=-1 => format!("-{:04}-{month:02}-{day:02}", year.unsigned_abs()),
        year if year > 0 => format!("+{year}-{month:02}-{day:02}"),
        year => format!("{year}-{month:02}-{day:02}"),
    }
}

/// `13:14:15.123456`; digits of the fraction as many as needed, or a fixed number.
pub(super) fn iso_time(micros_of_day: i64, fraction_digits: Option<usize>) -> String {
    let seconds = micros_of_day / 1_000_000;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{:06}", micros_of_day % 1_000_000);
    let fraction = match fraction_digits {
        Some(digits) => format!("{fraction:0<9}").chars().take(digits).collect(),
        None => fraction.trim_end_matches('0').to_owned(),
    };
    if fraction.is_empty() { clock } else { format!("{clock}.{fraction}") }
}

/// Date and time of microseconds since 1970, joined by `T`.
pub(super) fn iso_timestamp(micros: i64, fraction_digits: Option<usize>) -> String {
    let date = iso_date(micros.div_euclid(DAY_MICROSECONDS));
    format!("{date}T{}", iso_time(micros.rem_euclid(DAY_MICROSECONDS), fraction_digits))
}

/// A number of digits that no calculation with it can overflow.
fn digits(text: &str) -> Option<i64> {
    const LENGTH_MAX: usize = 9;
    if text.is_empty() || text.len() > LENGTH_MAX || !text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    text.parse().ok()
}

/// Source of both: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The same without the centuries that are no leap years.
fn days_from_julian(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) + day_of_year - 719_470
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
