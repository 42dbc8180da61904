//! Domain events: what other services learn about an order, in the form in which they learn it. Pure.
//!
//! The payloads have types of their own, apart from the REST answers that look alike: an answer may grow with the next
//! client's wish, an event is a contract with readers we do not know. `resources/contract/` holds one of each as consumers
//! see them.

use chrono::NaiveDateTime;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::money::Money;
use crate::order::{PurchaseOrder, StatusChange};

/// Aggregate type of events about an order; the relay routes them to `OrderEvents`.
pub(crate) const ORDER: &str = "Order";

/// Aggregate type of events about a customer; the relay routes them to `CustomerEvents`.
pub(crate) const CUSTOMER: &str = "Customer";

/// Something that happened to an aggregate, ready to be written to the outbox.
#[derive(Clone, Debug)]
pub(crate) struct DomainEvent {
    /// The kind of business object: decides the topic.
    pub aggregate_type: &'static str,
    /// Which one: becomes the record key, so the events of one aggregate stay in order.
    pub aggregate_id: String,
    /// What happened, in the past tense.
    pub event_type: &'static str,
    /// The facts, as JSON text.
    pub payload: Box<RawValue>,
}

impl DomainEvent {
    /// An order was placed.
    pub(crate) fn order_created(order: &PurchaseOrder) -> Result<DomainEvent, serde_json::Error> {
        let line_items = order
            .line_items
            .iter()
            .map(|line| LinePayload {
                id: line.id,
                item: &line.item,
                quantity: line.quantity,
                total_price: line.total_price,
                status: line.status.name(),
            })
            .collect();
        let payload = OrderCreated {
            id: order.id,
            customer_id: order.customer_id,
            order_date: order.order_date,
            line_items,
        };
        DomainEvent::new(ORDER, order.id, "OrderCreated", &payload)
    }

    /// The customer owes the value of the order.
    pub(crate) fn invoice_created(
        order: &PurchaseOrder,
        invoice_value: Money,
    ) -> Result<DomainEvent, serde_json::Error> {
        let payload =
            InvoiceCreated { order_id: order.id, invoice_date: order.order_date, invoice_value };
        DomainEvent::new(CUSTOMER, order.customer_id, "InvoiceCreated", &payload)
    }

    /// A line of an order got a status.
    pub(crate) fn order_line_updated(
        change: &StatusChange,
    ) -> Result<DomainEvent, serde_json::Error> {
        let payload = OrderLineUpdated {
            order_id: change.order_id,
            order_line_id: change.order_line_id,
            old_status: change.old_status.name(),
            new_status: change.new_status.name(),
        };
        DomainEvent::new(ORDER, change.order_id, "OrderLineUpdated", &payload)
    }

    fn new(
        aggregate_type: &'static str,
        aggregate_id: i64,
        event_type: &'static str,
        payload: &impl Serialize,
    ) -> Result<DomainEvent, serde_json::Error> {
        Ok(DomainEvent {
            aggregate_type,
            aggregate_id: aggregate_id.to_string(),
            event_type,
            payload: to_raw_value(payload)?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderCreated<'a> {
    id: i64,
    customer_id: i64,
    // Always with seconds, and with a fraction only where there is one: the way chrono writes a date and time.
    order_date: NaiveDateTime,
    line_items: Vec<LinePayload<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinePayload<'a> {
    id: i64,
    item: &'a str,
    quantity: i32,
    total_price: Money,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InvoiceCreated {
    order_id: i64,
    invoice_date: NaiveDateTime,
    invoice_value: Money,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderLineUpdated {
    order_id: i64,
    order_line_id: i64,
    old_status: &'static str,
    new_status: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::LineStatus;
    use crate::order::tests::seed_order;

    fn check(event: &DomainEvent, aggregate: (&str, &str), event_type: &str, payload: &str) {
        assert_eq!((event.aggregate_type, event.aggregate_id.as_str()), aggregate);
        assert_eq!(event.event_type, event_type);
        assert_eq!(event.payload.get(), payload);
    }

    #[test]
    fn an_order_event_is_about_the_order_and_carries_all_of_it() {
        let order = seed_order().into_stored(1, vec![1, 2]);
        check(
            &DomainEvent::order_created(&order).unwrap(),
            ("Order", "1"),
            "OrderCreated",
            concat!(
                r#"{"id":1,"customerId":123,"orderDate":"2019-01-31T12:13:01","lineItems":["#,
                r#"{"id":1,"item":"Debezium in Action","quantity":2,"totalPrice":39.98,"status":"ENTERED"},"#,
                r#"{"id":2,"item":"Debezium for Dummies","quantity":1,"totalPrice":29.99,"status":"ENTERED"}]}"#,
            ),
        );
    }

    #[test]
    fn an_invoice_event_is_about_the_customer() {
        let new_order = seed_order();
        let value = new_order.value();
        let order = new_order.into_stored(7, vec![1, 2]);
        check(
            &DomainEvent::invoice_created(&order, value).unwrap(),
            ("Customer", "123"),
            "InvoiceCreated",
            r#"{"orderId":7,"invoiceDate":"2019-01-31T12:13:01","invoiceValue":69.97}"#,
        );
    }

    #[test]
    fn a_line_event_is_about_the_order_so_that_it_stays_behind_the_creation() {
        let change = StatusChange {
            order_id: 1,
            order_line_id: 2,
            old_status: LineStatus::Entered,
            new_status: LineStatus::Cancelled,
        };
        check(
            &DomainEvent::order_line_updated(&change).unwrap(),
            ("Order", "1"),
            "OrderLineUpdated",
            r#"{"orderId":1,"orderLineId":2,"oldStatus":"ENTERED","newStatus":"CANCELLED"}"#,
        );
    }
}
