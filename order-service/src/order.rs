//! The purchase order, its lines and their status: what an order is and which orders exist at all. Pure.

use chrono::NaiveDateTime;
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use crate::money::{INTEGER_DIGITS_MAX, Money};

/// Characters of an item's name; the column is `varchar(255)`.
pub(crate) const ITEM_CHARS_MAX: usize = 255;

/// Pieces on one line: generous for an order made by a person, far from the end of the column's 32 bits.
pub(crate) const QUANTITY_MAX: i32 = 1_000_000;

/// Lines of one order. Together with the limit on the request's body it keeps every event below the 1 MB that a Kafka
/// broker takes as one record unless told otherwise.
pub(crate) const LINE_ITEMS_MAX: usize = 500;

/// The state of an order line. Any status may follow any other, as in the original example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum LineStatus {
    /// Ordered, not yet sent.
    Entered,
    /// The customer does not want it any more.
    Cancelled,
    /// On its way.
    Shipped,
}

impl LineStatus {
    /// Every status, in the order in which they are explained to a caller.
    pub(crate) const ALL: [LineStatus; 3] =
        [LineStatus::Entered, LineStatus::Cancelled, LineStatus::Shipped];

    /// The name in requests, answers, events and the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LineStatus::Entered => "ENTERED",
            LineStatus::Cancelled => "CANCELLED",
            LineStatus::Shipped => "SHIPPED",
        }
    }

    /// The status of this name, letter by letter.
    pub(crate) fn from_name(name: &str) -> Option<LineStatus> {
        LineStatus::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A line that a customer asks for; it has no id yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewLine {
    /// What is ordered.
    pub item: String,
    /// How many pieces.
    pub quantity: i32,
    /// Price of all pieces of the line together.
    pub total_price: Money,
}

/// An order that a customer asks for, checked: it can be stored and its value can be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewOrder {
    customer_id: i64,
    order_date: NaiveDateTime,
    lines: Vec<NewLine>,
    value: Money,
}

/// Why an order as a whole is refused. Each message completes the sentence "lineItems ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum OrderRule {
    #[error("must have at least one line")]
    Empty,
    #[error("must have at most {LINE_ITEMS_MAX} lines")]
    TooManyLines,
    #[error("must add up to a sum of at most {INTEGER_DIGITS_MAX} digits before the decimal point")]
    ValueTooLarge,
}

impl NewOrder {
    /// An order of these lines, if it has a sensible number of them and their prices have a sum.
    pub(crate) fn new(
        customer_id: i64,
        order_date: NaiveDateTime,
        lines: Vec<NewLine>,
    ) -> Result<NewOrder, OrderRule> {
        if lines.is_empty() {
            return Err(OrderRule::Empty);
        }
        if lines.len() > LINE_ITEMS_MAX {
            return Err(OrderRule::TooManyLines);
        }
        let value = lines
            .iter()
            .try_fold(Money::ZERO, |sum, line| sum.checked_add(line.total_price))
            .ok_or(OrderRule::ValueTooLarge)?;
        Ok(NewOrder { customer_id, order_date, lines, value })
    }

    /// Who orders.
    pub(crate) fn customer_id(&self) -> i64 {
        self.customer_id
    }

    /// When, by the customer's clock.
    pub(crate) fn order_date(&self) -> NaiveDateTime {
        self.order_date
    }

    /// What is ordered, in the order of the request.
    pub(crate) fn lines(&self) -> &[NewLine] {
        &self.lines
    }

    /// Sum of the lines' prices: the value of the invoice.
    pub(crate) fn value(&self) -> Money {
        self.value
    }

    /// The stored order, once the database has given out the ids. All lines start as [`LineStatus::Entered`].
    ///
    /// `line_ids` belong to the lines in order; a line without an id is left out, so the caller must bring as many.
    pub(crate) fn into_stored(self, id: i64, line_ids: Vec<i64>) -> PurchaseOrder {
        let line_items = line_ids
            .into_iter()
            .zip(self.lines)
            .map(|(id, line)| OrderLine {
                id,
                item: line.item,
                quantity: line.quantity,
                total_price: line.total_price,
                status: LineStatus::Entered,
            })
            .collect();
        PurchaseOrder { id, customer_id: self.customer_id, order_date: self.order_date, line_items }
    }
}

/// A stored order, and its form in answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseOrder {
    #[schema(example = 1)]
    pub id: i64,
    #[schema(example = 123)]
    pub customer_id: i64,
    /// Local date and time, always with seconds.
    #[schema(value_type = String, example = "2019-01-31T12:13:01")]
    pub order_date: NaiveDateTime,
    /// The lines in the order of their ids.
    pub line_items: Vec<OrderLine>,
}

/// A stored line, and its form in answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderLine {
    #[schema(example = 1)]
    pub id: i64,
    #[schema(example = "Debezium in Action")]
    pub item: String,
    #[schema(example = 2)]
    pub quantity: i32,
    pub total_price: Money,
    pub status: LineStatus,
}

/// A line changed from one status to another (or to the same: that is an event, too).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusChange {
    pub order_id: i64,
    pub order_line_id: i64,
    pub old_status: LineStatus,
    pub new_status: LineStatus,
}

impl PurchaseOrder {
    /// Gives the line the new status and says what changed; `None` if the order has no such line.
    pub(crate) fn change_line_status(
        &mut self,
        order_line_id: i64,
        new_status: LineStatus,
    ) -> Option<StatusChange> {
        let line = self.line_items.iter_mut().find(|line| line.id == order_line_id)?;
        let old_status = std::mem::replace(&mut line.status, new_status);
        Some(StatusChange { order_id: self.id, order_line_id, old_status, new_status })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::NaiveDate;

    use super::*;

    /// The order of the README.
    pub(crate) fn seed_order() -> NewOrder {
        let date = NaiveDate::from_ymd_opt(2019, 1, 31).unwrap().and_hms_opt(12, 13, 1).unwrap();
        let line = |item: &str, quantity, price: &str| NewLine {
            item: item.to_owned(),
            quantity,
            total_price: price.parse().unwrap(),
        };
        let lines =
            vec![line("Debezium in Action", 2, "39.98"), line("Debezium for Dummies", 1, "29.99")];
        NewOrder::new(123, date, lines).unwrap()
    }

    #[test]
    fn an_order_is_worth_the_sum_of_its_lines() {
        assert_eq!(seed_order().value().to_string(), "69.97");
    }

    #[test]
    fn an_order_without_lines_or_with_too_many_or_too_dear_is_refused() {
        let order = seed_order();
        let check = |lines: Vec<NewLine>, expected| {
            assert_eq!(NewOrder::new(1, order.order_date(), lines), Err(expected));
        };
        check(Vec::new(), OrderRule::Empty);
        check(vec![order.lines()[0].clone(); LINE_ITEMS_MAX + 1], OrderRule::TooManyLines);
        let mut dear = order.lines()[0].clone();
        dear.total_price = "99999999999999999999999999.99".parse().unwrap();
        check(vec![dear.clone(), dear], OrderRule::ValueTooLarge);
    }

    #[test]
    fn a_change_names_the_old_and_the_new_status() {
        let mut order = seed_order().into_stored(1, vec![1, 2]);
        let change = order.change_line_status(2, LineStatus::Cancelled).unwrap();
        assert_eq!(
            (change.old_status, change.new_status),
            (LineStatus::Entered, LineStatus::Cancelled)
        );
        assert_eq!(order.line_items[1].status, LineStatus::Cancelled);
        assert_eq!(order.line_items[0].status, LineStatus::Entered);
        assert_eq!(order.change_line_status(3, LineStatus::Shipped), None);
    }

    #[test]
    fn a_status_has_one_name_everywhere() {
        for status in LineStatus::ALL {
            assert_eq!(LineStatus::from_name(status.name()), Some(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{}\"", status.name()));
        }
        assert_eq!(LineStatus::from_name("cancelled"), None);
    }
}
