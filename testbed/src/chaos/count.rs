//! The count at the end: what was committed against what arrived; pure.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::truth::Event;

/// A record of a topic, as a reader sees it who reads committed ones only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What is in the shipment database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShipmentSide {
    /// The order of each shipment.
    pub(super) shipments: Vec<i64>,
    /// The ids of the message log, without hyphens.
    pub(super) handled: Vec<String>,
}

/// The figures of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that were committed in PostgreSQL.
    pub committed: usize,
    /// Of these, the ones that are in their topic.
    pub delivered: usize,
    /// The rest of them.
    pub lost: usize,
    /// Records beyond the first of an event.
    pub duplicated: usize,
    /// The most records that one event has.
    pub copies_max: usize,
    /// Events whose first record comes before that of an event of the same key that was committed earlier.
    pub reordered: usize,
    /// Records of events that were never committed.
    pub unknown: usize,
    /// Orders in PostgreSQL.
    pub orders: usize,
    /// Orders that have a shipment.
    pub shipped: usize,
    /// Orders without one.
    pub unshipped: usize,
    /// Shipments beyond the first of an order.
    pub shipped_again: usize,
    /// Orders that have a shipment and are not in PostgreSQL.
    pub shipped_unknown: usize,
    /// Events that are in the topic of the shipment side and not in its message log.
    pub unhandled: usize,
    /// Entries of the message log beyond the first of an event.
    pub handled_again: usize,
    /// What MySQL itself finds wrong with its tables: then the figures of the shipment side say nothing about our
    /// programs.
    pub damaged: Vec<String>,
}

/// Where events of orders go, which the shipment side reads.
pub(super) const ORDER_TOPIC: &str = "OrderEvents";

/// `committed` is in the order of the commits; `arrived` in any.
pub(super) fn count(
    committed: &[Event],
    orders: &[i64],
    mut arrived: Vec<Arrival>,
    side: &ShipmentSide,
) -> Counts {
    arrived
        .sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
    let positions: HashMap<(&str, &str, &str), usize> =
        committed.iter().enumerate().map(|(position, e)| (identity(e), position)).collect();
    let mut copies: HashMap<&str, usize> = HashMap::new();
    let mut delivered = HashSet::new();
    let mut last_of_key: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut reordered, mut unknown) = (0, 0);
    for record in &arrived {
        *copies.entry(&record.id).or_default() += 1;
        let Some(position) = positions.get(&(&*record.topic, &*record.key, &*record.id)) else {
            unknown += 1;
            continue;
        };
        if !delivered.insert(*position) {
            continue;
        }
        // The highest position of the key so far stays: an event that comes late counts once, not all that follow it.
        let last = last_of_key.entry((&record.topic, &record.key)).or_insert(*position);
        if position < last {
            reordered += 1;
        }
        *last = (*last).max(*position);
    }
    let shipped: HashSet<i64> = side.shipments.iter().copied().collect();
    let handled: HashSet<&str> = side.handled.iter().map(String::as_str).collect();
    let known: HashSet<i64> = orders.iter().copied().collect();
    let unhandled = delivered.iter().filter(|position| {
        let event = &committed[**position];
        event.topic == ORDER_TOPIC && !handled.contains(&*event.id.replace('-', ""))
    });
    let unhandled = unhandled.count();
    let unshipped = orders.iter().filter(|order| !shipped.contains(order)).count();
    Counts {
        committed: committed.len(),
        delivered: delivered.len(),
        lost: committed.len() - delivered.len(),
        duplicated: arrived.len() - copies.len(),
        copies_max: copies.values().copied().max().unwrap_or_default(),
        reordered: reordered + on_two_partitions(&arrived),
        unknown,
        orders: orders.len(),
        shipped: orders.len() - unshipped,
        unshipped,
        shipped_again: side.shipments.len() - shipped.len(),
        shipped_unknown: shipped.difference(&known).count(),
        unhandled,
        handled_again: side.handled.len() - handled.len(),
        // Asked of the server, when all is counted.
        damaged: Vec::new(),
    }
}

fn identity(event: &Event) -> (&str, &str, &str) {
    (&event.topic, &event.key, &event.id)
}

/// Keys without an order, since partitions have none among each other.
fn on_two_partitions(arrived: &[Arrival]) -> usize {
    let mut partitions: HashMap<(&str, &str), HashSet<i32>> = HashMap::new();
    for record in arrived {
        partitions.entry((&record.topic, &record.key)).or_default().insert(record.partition);
    }
    partitions.values().filter(|partitions| partitions.len() > 1).count()
}

/// Whether there is nothing left to wait for: everything that was committed is there, and handled.
pub(super) fn is_complete(committed: &[Event], arrived: &[Arrival], side: &ShipmentSide) -> bool {
    let there: HashSet<&str> = arrived.iter().map(|record| &*record.id).collect();
    let handled: HashSet<&str> = side.handled.iter().map(String::as_str).collect();
    committed.iter().all(|event| {
        there.contains(&*event.id)
            && (event.topic != ORDER_TOPIC || handled.contains(&*event.id.replace('-', "")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, key: &str) -> Event {
        Event { id: id.into(), topic: ORDER_TOPIC.into(), key: key.into() }
    }

    /// Records of one partition, written `id key`, in the order of their offsets.
    fn arrivals(records: &[(&str, &str)]) -> Vec<Arrival> {
        let arrival = |(offset, (id, key)): (i64, &(&str, &str))| Arrival {
            id: (*id).into(),
            topic: ORDER_TOPIC.into(),
            key: (*key).into(),
            partition: 0,
            offset,
        };
        (0..).zip(records).map(arrival).collect()
    }

    fn counted(committed: &[(&str, &str)], arrived: &[(&str, &str)]) -> Counts {
        let committed: Vec<Event> = committed.iter().map(|(id, key)| event(id, key)).collect();
        count(&committed, &[], arrivals(arrived), &ShipmentSide::default())
    }

    #[test]
    fn what_arrived_once_and_in_order_is_delivered() {
        let all = [("a", "1"), ("b", "2"), ("c", "1")];
        let counts = counted(&all, &all);
        assert_eq!((counts.committed, counts.delivered, counts.copies_max), (3, 3, 1));
        assert_eq!(
            (counts.lost, counts.duplicated, counts.reordered, counts.unknown),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn what_is_missing_is_lost_and_no_disorder() {
        let counts = counted(&[("a", "1"), ("b", "1"), ("c", "1")], &[("a", "1"), ("c", "1")]);
        assert_eq!((counts.delivered, counts.lost, counts.reordered), (2, 1, 0));
    }

    #[test]
    fn what_comes_again_is_a_duplicate_and_no_disorder() {
        let arrived = [("a", "1"), ("b", "1"), ("a", "1"), ("b", "1"), ("c", "1")];
        let counts = counted(&[("a", "1"), ("b", "1"), ("c", "1")], &arrived);
        assert_eq!((counts.duplicated, counts.copies_max, counts.reordered), (2, 2, 0));
    }

    #[test]
    fn an_event_that_is_overtaken_by_one_of_its_key_is_disorder() {
        let committed = [("a", "1"), ("x", "2"), ("b", "1")];
        assert_eq!(counted(&committed, &[("b", "1"), ("a", "1"), ("x", "2")]).reordered, 1);
        // Other keys may be overtaken.
        assert_eq!(counted(&committed, &[("a", "1"), ("b", "1"), ("x", "2")]).reordered, 0);
    }

    #[test]
    fn a_key_on_two_partitions_is_disorder() {
        let mut arrived = arrivals(&[("a", "1"), ("b", "1")]);
        arrived[1].partition = 1;
        let committed = [event("a", "1"), event("b", "1")];
        assert_eq!(count(&committed, &[], arrived, &ShipmentSide::default()).reordered, 1);
    }

    #[test]
    fn what_was_never_committed_or_has_the_wrong_key_is_unknown() {
        let counts = counted(&[("a", "1")], &[("a", "1"), ("b", "1"), ("a", "2")]);
        assert_eq!(counts.unknown, 2);
    }

    #[test]
    fn shipments_are_counted_by_order_and_the_message_log_by_event() {
        let side = ShipmentSide {
            shipments: vec![1, 2, 2],
            handled: vec!["a".into(), "b".into(), "b".into(), "b".into()],
        };
        let counts = count(&[], &[1, 2, 3], Vec::new(), &side);
        assert_eq!((counts.orders, counts.shipped, counts.unshipped), (3, 2, 1));
        assert_eq!((counts.shipped_again, counts.handled_again), (1, 2));
        assert_eq!(count(&[], &[1], Vec::new(), &side).shipped_unknown, 1);
    }

    #[test]
    fn an_event_that_arrived_and_was_not_handled_is_counted() {
        let committed = [event("a-1", "1"), event("b-2", "2")];
        let handled = ShipmentSide { shipments: Vec::new(), handled: vec!["a1".into()] };
        let counts = |records| count(&committed, &[], arrivals(records), &handled);
        assert_eq!(counts(&[("a-1", "1"), ("b-2", "2")]).unhandled, 1);
        // What did not arrive is lost, and counted as that alone.
        assert_eq!(counts(&[("a-1", "1")]).unhandled, 0);
    }

    #[test]
    fn a_run_is_complete_when_everything_is_there_and_handled() {
        let committed = [event("a-1", "1")];
        let side = |handled: &[&str]| ShipmentSide {
            shipments: Vec::new(),
            handled: handled.iter().map(|id| (*id).to_owned()).collect(),
        };
        assert!(!is_complete(&committed, &[], &side(&["a1"])));
        assert!(!is_complete(&committed, &arrivals(&[("a-1", "1")]), &side(&[])));
        assert!(is_complete(&committed, &arrivals(&[("a-1", "1")]), &side(&["a1"])));
    }
}
