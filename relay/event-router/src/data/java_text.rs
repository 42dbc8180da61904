//! Numbers and dates as Java prints them.

use std::fmt::Write as _;

/// `Double.toString`: at least one digit after the point, and an exponent outside of 10^-3 to 10^7.
///
/// Digits are the shortest that read back as the same number, as since Java 19; before, Java printed one more for
/// a few numbers.
#[must_use]
pub fn double_to_java(value: f64) -> String {
    if let Some(name) = special(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        return name.to_owned();
    }
    let shortest = format!("{value:e}");
    if has_one_digit(&shortest) {
        // Java never prints less than two digits, and picks the nearest such number: 4.9E-324, not 5.0E-324.
        return layout(&format!("{value:.1e}"), value == 0.0);
    }
    layout(&shortest, false)
}

/// `Float.toString`; see [`double_to_java`].
#[must_use]
pub fn float_to_java(value: f32) -> String {
    if let Some(name) = special(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        return name.to_owned();
    }
    let shortest = format!("{value:e}");
    if has_one_digit(&shortest) {
        return layout(&format!("{value:.1e}"), value == 0.0);
    }
    layout(&shortest, false)
}

/// `Date.toString` in UTC: `Sat Feb 29 13:14:15 UTC 2020`.
pub(super) fn write_date(milliseconds: i64, out: &mut String) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = milliseconds.div_euclid(1000);
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let (year, month, day) = hybrid_from_days(days);
    let year = if year > 0 { year } else { 1 - year };
    let weekday = usize::try_from(days.rem_euclid(7)).unwrap_or_default();
    let _ = write!(
        out,
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        DAYS.get(weekday).unwrap_or(&""),
        MONTHS.get(usize::from(month).saturating_sub(1)).unwrap_or(&""),
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60
    );
}

/// Year, month and day of a day since 1970 in the calendar of Java's dates: Julian before 1582-10-15.
fn hybrid_from_days(days: i64) -> (i64, u8, u8) {
    const GREGORIAN_START: i64 = -141_427;
    if days >= GREGORIAN_START {
        return civil_from_days(days);
    }
    let shifted = days + 719_470;
    let day_of_cycle = shifted.rem_euclid(1461);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460) / 365;
    from_march(year_of_cycle + shifted.div_euclid(1461) * 4, day_of_cycle - year_of_cycle * 365)
}

/// Year, month and day of a day in a year that begins in March.
fn from_march(year: i64, day_of_year: i64) -> (i64, u8, u8) {
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year + i64::from(month <= 2);
    (year, u8::try_from(month).unwrap_or_default(), u8::try_from(day).unwrap_or_default())
}

/// Year, month and day of a day since 1970 in the proleptic Gregorian calendar.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    from_march(year_of_era + era * 400, day_of_year)
}

const fn special(nan: bool, infinite: bool, negative: bool) -> Option<&'static str> {
    match (nan, infinite, negative) {
        (true, _, _) => Some("NaN"),
        (_, true, false) => Some("Infinity"),
        (_, true, true) => Some("-Infinity"),
        _ => None,
    }
}

fn has_one_digit(scientific: &str) -> bool {
    let mantissa = scientific.split('e').next().unwrap_or_default();
    mantissa.trim_start_matches('-').len() == 1
}

/// Lays out `d.ddde±n` as Java does.
fn layout(scientific: &str, zero: bool) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if zero {
        return format!("{sign}0.0");
    }
    let fraction_or_zero = |text: &str| {
        let text = text.trim_end_matches('0');
        if text.is_empty() { "0".to_owned() } else { text.to_owned() }
    };
    if (0..7).contains(&exponent) {
        let point = usize::try_from(exponent).unwrap_or_default() + 1;
        let padded = format!("{digits:0<point$}");
        let (whole, fraction) = padded.split_at(point);
        return format!("{sign}{whole}.{}", fraction_or_zero(fraction));
    }
    if (-3..0).contains(&exponent) {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or_default());
        return format!("{sign}0.{zeros}{}", fraction_or_zero(&digits));
    }
    let (whole, fraction) = digits.split_at(1);
    format!("{sign}{whole}.{}E{exponent}", fraction_or_zero(fraction))
}
