//! Reads an order event out of a message, whatever form its producer wrapped it in. Pure: bytes in, values out.
//!
//! The forms, all of them in the table of the tests:
//! - what our relay writes: headers `id` and `eventType`, the value is the plain JSON payload;
//! - the original example: the value is a JSON string that holds JSON, the key is quoted too;
//! - Kafka Connect's schema envelope, `{"schema": …, "payload": …}`, with an object or a string as payload;
//! - the example of 2019: header `eventId`, value `{"eventType": …, "ts_ms": …, "payload": "…"}`.

mod form;
mod order_date;

use chrono::NaiveDateTime;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::message::Message;

/// Where the event id travels: the Event Router's header, and that of the 2019 example.
const EVENT_ID_HEADERS: [&str; 2] = ["id", "eventId"];
/// Where the event type travels; the 2019 example has it in the value instead.
const EVENT_TYPE_HEADER: &str = "eventType";
/// A tracing id, a type name: anything longer is not a header of ours. Bytes.
const HEADER_BYTES_MAX: usize = 1024;

/// An event of the order service, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderEvent {
    /// The identity for dedup.
    pub(crate) event_id: Uuid,
    pub(crate) event_type: String,
    pub(crate) content: Content,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An order was placed. `payload` is its JSON on one line, for the log.
    OrderCreated { order: OrderCreated, payload: String },
    /// A line of an order has a new status. The shipment side only tells the log about it.
    OrderLineUpdated { payload: String },
    /// A type that this service does not know. Its value is not looked at.
    Unknown,
}

/// What the shipment side needs of a new order; the line items are not its business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderCreated {
    pub(crate) order_id: i64,
    pub(crate) customer_id: i64,
    pub(crate) order_date: NaiveDateTime,
}

/// Why a message can never be handled, whatever the retries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Poison {
    #[error("the message has no event id: neither a header `id` nor `eventId`")]
    NoEventId,
    #[error("the event id is not a UUID: {0}")]
    BadEventId(String),
    #[error(
        "the message has no event type: neither a header `eventType` nor a field of that name around the payload"
    )]
    NoEventType,
    #[error("the header `{0}` is not text of at most {HEADER_BYTES_MAX} bytes")]
    BadHeader(&'static str),
    #[error("the message has no value")]
    NoValue,
    #[error("the value is not a JSON object in one of the known forms: {0}")]
    UnreadableValue(String),
    #[error("field `{field}`: {problem}")]
    BadField { field: &'static str, problem: String },
    #[error("the database can never take this event: {0}")]
    RefusedByDatabase(String),
}

impl Poison {
    /// A short name for a machine; the sentence for a human is the `Display` form.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Poison::NoEventId => "no-event-id",
            Poison::BadEventId(_) => "bad-event-id",
            Poison::NoEventType => "no-event-type",
            Poison::BadHeader(_) => "bad-header",
            Poison::NoValue => "no-value",
            Poison::UnreadableValue(_) => "unreadable-value",
            Poison::BadField { .. } => "bad-field",
            Poison::RefusedByDatabase(_) => "refused-by-database",
        }
    }
}

/// Reads the event of a message. Never panics, on any bytes.
///
/// # Errors
/// The reason why this message is poison.
pub(crate) fn read(message: &Message) -> Result<OrderEvent, Poison> {
    let event_id = event_id(message)?;
    let value = message.value.as_deref().ok_or(Poison::NoValue).and_then(form::open);
    let event_type = match header_text(message, EVENT_TYPE_HEADER)? {
        Some(event_type) => event_type,
        // A value that can't be read is the better reason than the type that was not found in it.
        None => match &value {
            Ok(opened) => opened.event_type.clone().ok_or(Poison::NoEventType)?,
            Err(Poison::NoValue) => return Err(Poison::NoEventType),
            Err(poison) => return Err(poison.clone()),
        },
    };
    let content = match event_type.as_str() {
        "OrderCreated" => {
            let payload = value?.payload;
            Content::OrderCreated { order: order_created(&payload)?, payload }
        }
        "OrderLineUpdated" => Content::OrderLineUpdated { payload: value?.payload },
        _ => Content::Unknown,
    };
    Ok(OrderEvent { event_id, event_type, content })
}

/// The record key as the log shows it: without the quotes or the envelope of a converter.
pub(crate) fn display_key(key: Option<&[u8]>) -> String {
    let Some(key) = key else { return "null".to_owned() };
    form::open_text(key).unwrap_or_else(|| String::from_utf8_lossy(key).into_owned())
}

fn event_id(message: &Message) -> Result<Uuid, Poison> {
    for name in EVENT_ID_HEADERS {
        if let Some(text) = header_text(message, name)? {
            return Uuid::parse_str(text.trim())
                .map_err(|error| Poison::BadEventId(error.to_string()));
        }
    }
    Err(Poison::NoEventId)
}

/// A header as text, without the quotes or the envelope that a JSON header converter puts around it.
fn header_text(message: &Message, name: &'static str) -> Result<Option<String>, Poison> {
    let Some(value) = message.header(name) else { return Ok(None) };
    if value.len() > HEADER_BYTES_MAX {
        return Err(Poison::BadHeader(name));
    }
    form::open_text(value).ok_or(Poison::BadHeader(name)).map(Some)
}

/// The fields of the payload that matter here; others are skipped without being built.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderCreatedPayload {
    id: Option<Value>,
    customer_id: Option<Value>,
    order_date: Option<Value>,
}

fn order_created(payload: &str) -> Result<OrderCreated, Poison> {
    let payload: OrderCreatedPayload = serde_json::from_str(payload)
        .map_err(|error| Poison::UnreadableValue(error.to_string()))?;
    let order_date = payload.order_date.ok_or_else(|| missing("orderDate"))?;
    Ok(OrderCreated {
        order_id: number("id", payload.id)?,
        customer_id: number("customerId", payload.customer_id)?,
        order_date: order_date::read(&order_date)
            .map_err(|problem| Poison::BadField { field: "orderDate", problem })?,
    })
}

/// A whole number, also as a string: the original takes and sends either.
fn number(field: &'static str, value: Option<Value>) -> Result<i64, Poison> {
    let read = match value {
        None => return Err(missing(field)),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    read.ok_or_else(|| Poison::BadField {
        field,
        problem: "not a whole number of 64 bits".to_owned(),
    })
}

fn missing(field: &'static str) -> Poison {
    Poison::BadField { field, problem: "missing".to_owned() }
}

#[cfg(test)]
mod tests;
