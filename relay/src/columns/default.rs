//! Defaults of columns, from their SQL expressions: literals are read, functions become a zero, the rest is ignored.

use std::borrow::Cow;
use std::sync::LazyLock;

use event_router::data::{Decimal, Value};
use regex::Regex;

use super::catalog::{PgType, TypeForm, TypeRegistry};
use super::kind::Kind;
use super::modes::ValueModes;
use super::value::{Converter, bits, zoned_timestamp};
use super::{date, interval};

/// A call of a function at the start of an expression.
static FUNCTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[(]?[A-Za-z0-9_.]+\((?:.+(?:, ?.+)*)?\)").ok());

/// Functions of time that are called without parentheses.
const CURRENT: [&str; 5] =
    ["current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"];

/// Days of 1970-01-01 to the ends of Java's calendar, by which Debezium reads infinite defaults, not by the values'
/// own.
const LOCAL_DATE_MAX: i64 = 365_241_780_471;
const LOCAL_DATE_MIN: i64 = -365_243_219_162;

/// Whether Debezium reads defaults of a type at all: not of `oid`, `"char"`, addresses and ranges, and of types that
/// are not built in only those of enums.
pub(super) fn is_read(types: &TypeRegistry, oid: u32) -> bool {
    let is_left_out =
        matches!(oid, 18 | 26 | 650 | 774 | 829 | 869 | 3904 | 3906 | 3908 | 3910 | 3912 | 3926);
    let is_enum = |known: &PgType| matches!(known.form, TypeForm::Enum(_));
    !is_left_out && types.get(oid).is_none_or(is_enum)
}

/// The default of a column; none where there is none or it cannot be read.
pub(super) fn value(
    kind: &Kind,
    type_name: Option<&str>,
    expression: &str,
    modes: &ValueModes,
) -> Option<Value<'static>> {
    let expression = expression.trim();
    let converter = Converter { modes };
    let text = |placeholder: &str| literal(expression, placeholder);
    Some(match kind {
        Kind::Boolean => Value::Boolean(text("false")?.eq_ignore_ascii_case("true")),
        Kind::Int16 => Value::Int16(text("0")?.parse().ok()?),
        Kind::Int32 => Value::Int32(text("0")?.parse().ok()?),
        Kind::Int64 => Value::Int64(text("0")?.parse().ok()?),
        Kind::Float32 => Value::Float32(text("0.0")?.parse().ok()?),
        Kind::Float64 => Value::Float64(text("0.0")?.parse().ok()?),
        Kind::Text => Value::String(Cow::Owned(text("")?)),
        Kind::Named("io.debezium.data.Json") => Value::String(Cow::Owned(text("{}")?)),
        Kind::Named("io.debezium.data.Xml") => Value::String(Cow::Owned(text("")?)),
        Kind::Named("io.debezium.data.Uuid") => {
            let uuid: uuid::Uuid = text("00000000-0000-0000-0000-000000000000")?.parse().ok()?;
            Value::String(Cow::Owned(uuid.to_string()))
        }
        Kind::Enum(_) => enum_default(expression, type_name?)?,
        Kind::Bit => Value::Boolean(text("0")?.contains('1')),
        Kind::Bits(_) => Value::Bytes(Cow::Owned(bits(&text("00")?))),
        Kind::Numeric { scale, .. } => {
            converter.decimal(&text("0.0")?.parse::<Decimal>().ok()?, Some(*scale))
        }
        // Connect cannot have a struct as a default.
        Kind::VariableNumeric => {
            let decimal = text("0.0")?.parse::<Decimal>().ok()?;
            match converter.decimal(&decimal, None) {
                Value::Struct(_) => return None,
                value => value,
            }
        }
        Kind::Date => converter.date_of(match text("1970-01-01")?.as_str() {
            date::INFINITY => LOCAL_DATE_MAX,
            date::MINUS_INFINITY => LOCAL_DATE_MIN,
            text => date::days(text)?,
        })?,
        Kind::Time(precision) => {
            let micros = date::time_of_day(&with_seconds(&text("00:00")?))?;
            converter.time_of(micros, *precision)?
        }
        Kind::Timestamp(precision) => {
            converter.timestamp_of(timestamp(&text("1970-01-01")?)?, *precision)?
        }
        Kind::TimestampTz(precision) => {
            zoned_timestamp(timestamp(&text("1970-01-01")?)?, *precision)
        }
        Kind::Interval => interval::value(&text("epoch")?, modes.interval)?,
        _ => return None,
    })
}

/// What an expression stands for: a placeholder for a function, the text between quotes, or the expression itself.
fn literal(expression: &str, placeholder: &str) -> Option<String> {
    let is_function = FUNCTION.as_ref().is_some_and(|function| function.is_match(expression));
    if is_function || CURRENT.contains(&expression.to_ascii_lowercase().as_str()) {
        return Some(placeholder.to_owned());
    }
    if expression.starts_with("NULL::") {
        return None;
    }
    let Some((_, quoted)) = expression.split_once('\'') else { return Some(expression.to_owned()) };
    let mut text = String::new();
    let mut rest = quoted.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '\'' {
            text.push(character);
        } else if rest.next_if_eq(&'\'').is_some() {
            text.push('\'');
        } else {
            return Some(text);
        }
    }
    None
}

/// `'sad'::mood`: only a literal of the very type.
fn enum_default(expression: &str, type_name: &str) -> Option<Value<'static>> {
    let (literal, cast) = expression.rsplit_once("::")?;
    let name = cast.rsplit('.').next().unwrap_or(cast).trim_matches('"');
    let label = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    (name == type_name).then(|| Value::String(Cow::Owned(label.to_owned())))
}

fn with_seconds(time: &str) -> String {
    if time.matches(':').count() == 1 { format!("{time}:00") } else { time.to_owned() }
}

/// A timestamp with or without time and zone.
fn timestamp(text: &str) -> Option<i64> {
    if !text.contains(':') {
        return date::days(text)?.checked_mul(date::DAY_MICROSECONDS);
    }
    date::timestamp(text).or_else(|| date::timestamp_with_zone(text))
}
