//! A record as librdkafka takes it, and what it weighs.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::progress::Sequence;
use crate::record::Record;

/// What the lengths of a header's name and value take, at the most.
const HEADER_OVERHEAD: usize = 10;

/// Weights are told in these steps.
const WEIGHT_UNIT: usize = 64;

/// Sequences of a task fit in: at 100,000 records a second for two years and nine months.
const SEQUENCE_BITS: u32 = 43;
const SEQUENCE_MASK: usize = (1 << SEQUENCE_BITS) - 1;

/// 128 MiB, more than a request may have.
const WEIGHT_UNITS_MAX: usize = (1 << (usize::BITS - SEQUENCE_BITS)) - 1;

/// What a record weighs in memory, in whole units: key, value and headers.
pub(super) fn weight(record: &Record) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + length(value) + HEADER_OVERHEAD);
    let bytes = length(&record.key) + length(&record.value) + headers.sum::<usize>();
    bytes.div_ceil(WEIGHT_UNIT).min(WEIGHT_UNITS_MAX) * WEIGHT_UNIT
}

/// What librdkafka gives back with a record's delivery: its sequence and its weight in one number, so that nothing must
/// be looked up or measured again.
pub(super) const fn opaque(sequence: Sequence, weight: usize) -> usize {
    ((weight / WEIGHT_UNIT) << SEQUENCE_BITS) | ((sequence as usize) & SEQUENCE_MASK)
}

pub(super) const fn of_opaque(opaque: usize) -> (Sequence, usize) {
    ((opaque & SEQUENCE_MASK) as Sequence, (opaque >> SEQUENCE_BITS) * WEIGHT_UNIT)
}

/// What is handed to a producer; `opaque` comes back with its delivery.
pub(super) fn to_send(record: &Record, opaque: usize) -> BaseRecord<'_, [u8], [u8], usize> {
    let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&record.topic, opaque);
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    base.partition = record.partition;
    base.timestamp = record.timestamp;
    base.headers = headers(record);
    base
}

fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: value.as_deref() });
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_gives_back_what_was_published() {
        let header = ("id".to_owned(), Some(vec![0; 1 << 20]));
        let record = Record { key: Some(vec![1]), headers: vec![header], ..Record::default() };
        let weight = weight(&record);
        assert!(weight >= 1 << 20, "headers take memory, too");
        let sequence = (1 << 42) + 5;
        assert_eq!(of_opaque(opaque(sequence, weight)), (sequence, weight));
    }
}
