//! From the bytes of a request to an order or a status: every rule about input, in one place. Pure.
//!
//! As lenient as the original where it does no harm (numbers as strings, dates without seconds, the fields `id` and
//! `status` of a sent line), and strict where the original stored nonsense or failed with a 500.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Timelike};
use serde_json::value::RawValue;

use super::fields::{Mistakes, Object, Value};
use super::problem::{FieldError, Problem};
use crate::money::Money;
use crate::order::{
    ITEM_CHARS_MAX, LINE_ITEMS_MAX, LineStatus, NewLine, NewOrder, OrderRule, QUANTITY_MAX,
};

/// `2019-01-31T12:13:01.123456789`.
const DATE_CHARS_MAX: usize = 29;

/// What every reader of an event can store: MySQL's `datetime` (the shipment service's column) holds no other years.
const YEARS: std::ops::RangeInclusive<i32> = 1000..=9999;

/// Digits after the second that the column `timestamp(6)` keeps. The rest is cut off here, so that answer, event and table
/// agree.
const FRACTION_DIGITS: u16 = 6;

/// Reads the order to be placed.
pub(crate) fn read_new_order(body: &[u8]) -> Result<NewOrder, Problem> {
    let document = read_document(body)?;
    let object = read_body_object(document)?;
    let mut mistakes = Mistakes::default();
    object.refuse_others(&["customerId", "orderDate", "lineItems"], &mut mistakes);
    let customer_id = object.required("customerId", &mut mistakes, |value| {
        whole_number(&value, 1, i64::MAX)
            .ok_or_else(|| format!("must be a whole number from 1 to {}", i64::MAX))
    });
    let order_date = object.required("orderDate", &mut mistakes, |value| {
        date_time(&value).ok_or_else(|| {
            format!(
                "must be a local date and time such as 2019-01-31T12:13:01, without an offset, in the years {} to {}",
                YEARS.start(),
                YEARS.end()
            )
        })
    });
    let lines = read_lines(&object, &mut mistakes);
    let order = match (customer_id, order_date, lines) {
        (Some(customer_id), Some(order_date), Some(lines)) => {
            NewOrder::new(customer_id, order_date, lines)
                .map_err(|rule| mistakes.add("/lineItems", format!("lineItems {rule}")))
                .ok()
        }
        _ => None,
    };
    finish(order, mistakes)
}

/// Reads the status that a line is to get.
pub(crate) fn read_new_status(body: &[u8]) -> Result<LineStatus, Problem> {
    let document = read_document(body)?;
    let object = read_body_object(document)?;
    let mut mistakes = Mistakes::default();
    object.refuse_others(&["newStatus"], &mut mistakes);
    let status = object.required("newStatus", &mut mistakes, |value| {
        let status = match &value {
            Value::Text(name) => LineStatus::from_name(name),
            _ => None,
        };
        let names = LineStatus::ALL.map(LineStatus::name).join(", ");
        status.ok_or_else(|| format!("must be one of {names}"))
    });
    finish(status, mistakes)
}

/// Reads an id in a path. Any 64-bit number is one; whether something has it is another question.
pub(crate) fn read_id(parameter: &'static str, text: &str) -> Result<i64, FieldError> {
    text.parse().map_err(|_| {
        FieldError::parameter(parameter, format!("{parameter} must be a whole number of 64 bits"))
    })
}

fn finish<T>(value: Option<T>, mistakes: Mistakes) -> Result<T, Problem> {
    let errors = mistakes.into_errors();
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(Problem::fields(errors)),
    }
}

fn read_document(body: &[u8]) -> Result<&RawValue, Problem> {
    let whole = |detail: String| {
        Problem::fields(vec![FieldError { pointer: Some("#".to_owned()), parameter: None, detail }])
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(whole("The body is empty; send a JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| {
        // The parser's own words, which name the line and the column and quote nothing of the body.
        whole(format!("The body is not JSON: {error}"))
    })
}

fn read_body_object(document: &RawValue) -> Result<Object<'_>, Problem> {
    Object::read(String::new(), document).ok_or_else(|| {
        Problem::fields(vec![FieldError {
            pointer: Some("#".to_owned()),
            parameter: None,
            detail: "The body must be a JSON object".to_owned(),
        }])
    })
}

/// All lines, or `None` after a mistake in any of them was noted.
fn read_lines(order: &Object<'_>, mistakes: &mut Mistakes) -> Option<Vec<NewLine>> {
    let lines = order.required("lineItems", mistakes, |value| match value {
        Value::Array(lines) if lines.is_empty() => Err(OrderRule::Empty.to_string()),
        Value::Array(lines) if lines.len() > LINE_ITEMS_MAX => {
            Err(OrderRule::TooManyLines.to_string())
        }
        Value::Array(lines) => Ok(lines),
        _ => Err("must be an array of lines".to_owned()),
    })?;
    let mut read = Vec::with_capacity(lines.len());
    for (index, raw) in lines.iter().enumerate() {
        let pointer = format!("{}/{index}", order.pointer_to("lineItems"));
        match Object::read(pointer.clone(), raw) {
            Some(line) => read.push(read_line(&line, mistakes)),
            None => {
                mistakes.add(&pointer, format!("lineItems[{index}] must be an object"));
                read.push(None);
            }
        }
    }
    read.into_iter().collect()
}

fn read_line(line: &Object<'_>, mistakes: &mut Mistakes) -> Option<NewLine> {
    // A client may send back what it got: the id and the status are ours to give, and ignored.
    line.refuse_others(&["item", "quantity", "totalPrice", "id", "status"], mistakes);
    let item = line.required("item", mistakes, read_item);
    let quantity = line.required("quantity", mistakes, |value| {
        whole_number(&value, 1, i64::from(QUANTITY_MAX))
            .and_then(|quantity| i32::try_from(quantity).ok())
            .ok_or_else(|| format!("must be a whole number from 1 to {QUANTITY_MAX}"))
    });
    let total_price = line.required("totalPrice", mistakes, |value| {
        let text = value.number_text().unwrap_or_default();
        text.parse::<Money>().map_err(|error| error.to_string())
    });
    Some(NewLine { item: item?, quantity: quantity?, total_price: total_price? })
}

fn read_item(value: Value<'_>) -> Result<String, String> {
    let item = match value {
        Value::Text(text) => text,
        Value::Number(digits) => digits.to_owned(),
        _ => return Err("must be a text".to_owned()),
    };
    if item.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    if item.chars().count() > ITEM_CHARS_MAX {
        return Err(format!("must have at most {ITEM_CHARS_MAX} characters"));
    }
    // PostgreSQL's text has no place for it.
    if item.contains('\0') {
        return Err("must not contain the character U+0000".to_owned());
    }
    Ok(item)
}

/// A whole number in these bounds, as a JSON number or as a string of digits.
fn whole_number(value: &Value<'_>, min: i64, max: i64) -> Option<i64> {
    let number: i64 = value.number_text()?.parse().ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// A local date and time: `2019-01-31T12:13:01`, with or without seconds, a fraction or a final `Z` (which is dropped, as
/// the original does), or an array of numbers, as Java's Jackson writes it by default.
fn date_time(value: &Value<'_>) -> Option<NaiveDateTime> {
    let date_time = match value {
        Value::Text(text) => date_time_from_text(text)?,
        Value::Array(parts) => date_time_from_parts(parts)?,
        _ => return None,
    };
    // A 60th second passes the parser as a leap second; no clock of a customer shows one.
    let fits = YEARS.contains(&date_time.year()) && date_time.nanosecond() < 1_000_000_000;
    fits.then(|| date_time.trunc_subsecs(FRACTION_DIGITS))
}

fn date_time_from_text(text: &str) -> Option<NaiveDateTime> {
    let local = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = local.split_once('T')?;
    // The parsers would take signs, spaces, single digits and years of any length.
    if !is_date(date) || !is_time(time) || local.len() > DATE_CHARS_MAX {
        return None;
    }
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time = NaiveTime::parse_from_str(time, "%H:%M:%S%.f")
        .or_else(|_| NaiveTime::parse_from_str(time, "%H:%M"))
        .ok()?;
    Some(date.and_time(time))
}

/// Whether this is `yyyy-mm-dd`, as far as digits and dashes go.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    are_digits(year, 4) && are_digits(month, 2) && are_digits(day, 2)
}

/// Whether this is `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f`, as far as digits and separators go.
fn is_time(text: &str) -> bool {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let fraction_fits = match fraction {
        None => true,
        Some(digits) => parts.len() == 3 && !digits.is_empty() && are_digits(digits, digits.len()),
    };
    matches!(parts.len(), 2 | 3) && fraction_fits && parts.iter().all(|part| are_digits(part, 2))
}

fn are_digits(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn date_time_from_parts(parts: &[&RawValue]) -> Option<NaiveDateTime> {
    let numbers: Option<Vec<u32>> = parts.iter().map(|part| part.get().parse().ok()).collect();
    let numbers = numbers?;
    if !(5..=7).contains(&numbers.len()) {
        return None;
    }
    let part = |index: usize| numbers.get(index).copied().unwrap_or(0);
    NaiveDate::from_ymd_opt(i32::try_from(part(0)).ok()?, part(1), part(2))?.and_hms_nano_opt(
        part(3),
        part(4),
        part(5),
        part(6),
    )
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
