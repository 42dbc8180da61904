//! The shipment of an order. Pure.

use chrono::NaiveDateTime;

use crate::event::OrderCreated;

/// A shipment that does not have an id yet: the database gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewShipment {
    pub(crate) customer_id: i64,
    pub(crate) order_id: i64,
    pub(crate) order_date: NaiveDateTime,
}

impl NewShipment {
    /// The shipment that a new order asks for. A real warehouse would plan it here.
    pub(crate) fn of(order: &OrderCreated) -> NewShipment {
        NewShipment {
            customer_id: order.customer_id,
            order_id: order.order_id,
            order_date: order.order_date,
        }
    }
}
