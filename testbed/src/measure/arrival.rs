//! Whether what arrived in a topic is what was committed: complete, once, in the order of each key, unharmed.

use std::collections::HashMap;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::load::KEYS;
use crate::topic::Record;

/// What the check looks at of a payload.
#[derive(Deserialize)]
struct Payload {
    seq: u32,
}

/// How the records of a topic differ from the events that were committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    lost: usize,
    repeated: usize,
    out_of_order: usize,
    malformed: usize,
}

/// Compares the records (in the order of their offsets) with the events 1 to `events`.
pub(super) fn compare(records: &[Record], events: u32) -> Differences {
    let mut differences = Differences::default();
    let mut seen = vec![false; events as usize];
    let mut last_of_key = HashMap::new();
    for record in records {
        let Some(seq) = sequence(record) else {
            differences.malformed += 1;
            continue;
        };
        match seen.get_mut((seq as usize).wrapping_sub(1)) {
            None => differences.malformed += 1,
            Some(seen) if *seen => differences.repeated += 1,
            Some(seen) => {
                *seen = true;
                let last = last_of_key.insert(seq % KEYS, seq);
                differences.out_of_order += usize::from(last.is_some_and(|last| last > seq));
            }
        }
    }
    differences.lost = seen.iter().filter(|seen| !**seen).count();
    differences
}

/// The number of the event, if key, headers and value are as they should be.
fn sequence(record: &Record) -> Option<u32> {
    let payload: Payload = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let is_sound = record.key_text() == (payload.seq % KEYS).to_string()
        && record.header("id").is_some_and(|id| id.parse::<uuid::Uuid>().is_ok())
        && record.header("eventType").as_deref() == Some("OrderCreated");
    is_sound.then_some(payload.seq)
}

impl Differences {
    /// # Errors
    /// When there is any: nothing was killed or restarted, so not even repeated events have an excuse.
    pub(super) fn none(&self) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let Self { lost, repeated, out_of_order, malformed } = self;
        bail!(
            "the relay did not deliver what was committed: {lost} events lost, {repeated} repeated, \
             {out_of_order} out of order, {malformed} malformed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u32) -> Record {
        Record {
            partition: 0,
            offset: 0,
            timestamp: None,
            key: Some((seq % KEYS).to_string().into_bytes()),
            headers: vec![
                ("id".to_owned(), Some(uuid::Uuid::new_v4().to_string().into_bytes())),
                ("eventType".to_owned(), Some(b"OrderCreated".to_vec())),
            ],
            value: Some(format!(r#"{{"seq": {seq}}}"#).into_bytes()),
        }
    }

    fn check(sequences: &[u32], events: u32, expected: Differences) {
        let records: Vec<Record> = sequences.iter().map(|seq| record(*seq)).collect();
        assert_eq!(compare(&records, events), expected);
    }

    #[test]
    fn what_was_committed_has_no_differences() {
        check(&[1, 2, 3], 3, Differences::default());
        assert!(compare(&[record(1)], 1).none().is_ok());
    }

    #[test]
    fn lost_and_repeated_events_are_counted() {
        check(&[1, 1, 3], 3, Differences { lost: 1, repeated: 1, ..Differences::default() });
        assert!(compare(&[record(1)], 2).none().is_err());
    }

    #[test]
    fn order_counts_within_a_key_only() {
        check(&[2, 1], 2, Differences::default());
        let swapped: Vec<Record> = (1..=KEYS + 1).rev().map(record).collect();
        let expected = Differences { out_of_order: 1, ..Differences::default() };
        assert_eq!(compare(&swapped, KEYS + 1), expected);
    }

    #[test]
    fn a_wrong_key_or_header_and_a_stranger_are_malformed() {
        let mut wrong_key = record(1);
        wrong_key.key = Some(b"x".to_vec());
        let mut no_id = record(2);
        no_id.headers.remove(0);
        let expected = Differences { lost: 2, malformed: 3, ..Differences::default() };
        assert_eq!(compare(&[wrong_key, no_id, record(9)], 2), expected);
    }
}
