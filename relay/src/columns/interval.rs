//! Intervals, from any of PostgreSQL's styles, as the JDBC driver reads them.

use std::borrow::Cow;

use event_router::data::{Decimal, Value, double_to_java};

use super::modes::IntervalMode;

/// Days of an average month, as Debezium counts.
const DAYS_PER_MONTH: f64 = 365.25 / 12.0;

/// An interval by its parts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Interval {
    years: i32,
    months: i32,
    days: i32,
    hours: i32,
    minutes: i32,
    seconds: f64,
}

/// The value in either mode.
pub(super) fn value(text: &str, mode: IntervalMode) -> Option<Value<'static>> {
    let interval = if text.starts_with('P') { parse_iso(text) } else { parse_words(text) }?;
    Some(match mode {
        IntervalMode::Numeric => Value::Int64(interval.microseconds()),
        IntervalMode::String => Value::String(Cow::Owned(interval.to_iso())),
    })
}

impl Interval {
    fn microseconds(&self) -> i64 {
        let months = f64::from(self.years) * 12.0 + f64::from(self.months);
        let days = months * DAYS_PER_MONTH + f64::from(self.days);
        let minutes = (days * 24.0 + f64::from(self.hours)) * 60.0 + f64::from(self.minutes);
        let seconds = minutes * 60.0 + self.seconds;
        // Java's cast drops the fraction, and so does Rust's.
        (seconds * 1e6) as i64
    }

    fn to_iso(self) -> String {
        let Self { years, months, days, hours, minutes, .. } = self;
        let seconds = double_to_java(self.seconds).parse::<Decimal>().ok();
        let seconds =
            seconds.map(|seconds| seconds.stripped().to_plain_string()).unwrap_or_default();
        format!("P{years}Y{months}M{days}DT{hours}H{minutes}M{seconds}S")
    }

    /// The driver keeps whole seconds and microseconds apart.
    fn with_seconds(mut self, seconds: f64) -> Self {
        self.seconds = (seconds * 1e6).round() / 1e6;
        self
    }
}

/// The styles `postgres`, `postgres_verbose` and `sql_standard`. Of the last, the driver reads only the time.
fn parse_words(text: &str) -> Option<Interval> {
    let verbose = text.starts_with('@');
    let cleaned = text.replace(['+', '@'], " ");
    let mut interval = Interval::default();
    let mut number: Option<&str> = None;
    for (index, token) in cleaned.split_whitespace().enumerate() {
        if index % 2 == 0 {
            if token.contains(':') {
                interval = clock(interval, token)?;
                number = None;
            } else {
                number = Some(token);
            }
            continue;
        }
        let whole = || number.unwrap_or("0").parse().ok();
        match token {
            token if token.starts_with("year") => interval.years = whole()?,
            token if token.starts_with("mon") => interval.months = whole()?,
            token if token.starts_with("day") => interval.days = whole()?,
            token if token.starts_with("hour") => interval.hours = whole()?,
            token if token.starts_with("min") => interval.minutes = whole()?,
            token if token.starts_with("sec") => {
                interval = interval.with_seconds(number.unwrap_or("0").parse().ok()?);
            }
            _ => {}
        }
    }
    if verbose && text.ends_with("ago") {
        let Interval { years, months, days, hours, minutes, seconds } = interval;
        return Some(Interval {
            years: years.saturating_neg(),
            months: months.saturating_neg(),
            days: days.saturating_neg(),
            hours: hours.saturating_neg(),
            minutes: minutes.saturating_neg(),
            seconds: -seconds,
        });
    }
    Some(interval)
}

fn clock(interval: Interval, token: &str) -> Option<Interval> {
    let (negative, clock) = match token.strip_prefix('-') {
        Some(clock) => (true, clock),
        None => (false, token),
    };
    let sign = if negative { -1 } else { 1 };
    let mut parts = clock.splitn(3, ':');
    let hours: i32 = parts.next()?.parse().ok()?;
    let minutes: i32 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Ok(0.0), str::parse).ok()?;
    let interval = Interval {
        hours: hours.saturating_mul(sign),
        minutes: minutes.saturating_mul(sign),
        ..interval
    };
    Some(interval.with_seconds(f64::from(sign) * seconds))
}

/// `P1Y2M3DT4H5M6.789S`.
fn parse_iso(text: &str) -> Option<Interval> {
    let mut interval = Interval::default();
    let mut in_time = false;
    let mut number = String::new();
    for character in text.strip_prefix('P')?.chars() {
        if matches!(character, '0'..='9' | '-' | '+' | '.') {
            number.push(character);
            continue;
        }
        let given = std::mem::take(&mut number);
        let whole = || given.parse().ok();
        match (character, in_time) {
            ('T', _) => in_time = true,
            ('Y', _) => interval.years = whole()?,
            ('M', false) => interval.months = whole()?,
            ('D', _) => interval.days = whole()?,
            ('H', _) => interval.hours = whole()?,
            ('M', true) => interval.minutes = whole()?,
            ('S', _) => interval = interval.with_seconds(given.parse().ok()?),
            _ => return None,
        }
    }
    Some(interval)
}
