//! What Kafka decided about transactions: its log of them, topic `__transaction_state`. Its calls block.
//!
//! For a commit the coordinator first writes its decision here (`PrepareCommit`, with the partitions), then a marker into
//! each partition, then that it is done. A broker that dies in between and is restarted may take partitions that have no
//! leader at that moment for deleted ones, and leave their markers out (seen with Kafka 4.3.1, a single broker; its log
//! says `Couldn't find leader endpoint for partitions`). The decision stands here all the same.
//!
//! The form of its records is public: `TransactionLogKey.json` and `TransactionLogValue.json` in Kafka's sources.

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;
use rdkafka::message::Message;

use super::stored_position::{each_record, offset_at, partitions};

/// Where the coordinators keep it.
const TOPIC: &str = "__transaction_state";

/// A partition that took part in a transaction.
pub(super) type Partition = (String, i32);

/// Commit or abort, which is not taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) commit: bool,
    /// Everything that the transaction wrote to.
    pub(super) partitions: Vec<Partition>,
}

/// The last decision about a transaction of `transactional_id` that wrote to `partition`; none where the log has none
/// since `since_ms` (milliseconds since 1970).
///
/// # Errors
/// When the log cannot be read: brokers are away, or the client may not read it.
pub(super) fn last_decision(
    consumer: &BaseConsumer,
    transactional_id: &str,
    partition: &Partition,
    since_ms: i64,
) -> KafkaResult<Option<Decision>> {
    let log = partition_of(transactional_id, partitions(consumer, TOPIC)?);
    let Some(first) = offset_at(consumer, TOPIC, log, since_ms)? else { return Ok(None) };
    let mut last = None;
    each_record(consumer, TOPIC, log, first, |record| {
        let (Some(key), Some(value)) = (record.key(), record.payload()) else { return };
        if id_of(key) != Some(transactional_id) {
            return;
        }
        if let Some(decision) = decision(value).filter(|found| found.partitions.contains(partition))
        {
            last = Some(decision);
        }
    })?;
    Ok(last)
}

/// As the coordinators find their partition: by Java's hash of the name.
fn partition_of(transactional_id: &str, partitions: i32) -> i32 {
    let hash = transactional_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The least number has no absolute value: Kafka takes 0 for it.
    hash.checked_abs().unwrap_or_default() % partitions.max(1)
}

/// The transactional id of a record's key.
fn id_of(key: &[u8]) -> Option<&str> {
    let mut bytes = Bytes(key);
    (bytes.i16()? == 0).then_some(())?;
    let length = bytes.i16()?;
    std::str::from_utf8(bytes.take(usize::try_from(length).ok()?)?).ok()
}

/// What a record's value decides; most decide nothing.
fn decision(value: &[u8]) -> Option<Decision> {
    const PREPARE_COMMIT: u8 = 2;
    const PREPARE_ABORT: u8 = 3;
    let mut bytes = Bytes(value);
    let version = bytes.i16()?;
    // Producer id, its epoch, and the timeout.
    bytes.take(8 + 2 + 4)?;
    let commit = match bytes.u8()? {
        PREPARE_COMMIT => true,
        PREPARE_ABORT => false,
        _ => return None,
    };
    let partitions = match version {
        0 => bytes.partitions(Form::Plain)?,
        1 => bytes.partitions(Form::Compact)?,
        _ => return None,
    };
    Some(Decision { commit, partitions })
}

/// How lengths are written.
#[derive(Clone, Copy)]
enum Form {
    /// In four bytes, of strings in two.
    Plain,
    /// One more than it is, in groups of seven bits; structures end with tagged fields.
    Compact,
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn unsigned_varint(&mut self) -> Option<usize> {
        let mut value = 0;
        // Five groups of seven bits hold what Kafka writes.
        for group in 0..5 {
            let byte = usize::from(self.u8()?);
            value |= (byte & 0x7f) << (7 * group);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The length of an array; 0 for none at all.
    fn count(&mut self, form: Form) -> Option<usize> {
        match form {
            Form::Plain => usize::try_from(self.i32()?.max(0)).ok(),
            Form::Compact => Some(self.unsigned_varint()?.saturating_sub(1)),
        }
    }

    fn text(&mut self, form: Form) -> Option<&'a str> {
        let length = match form {
            Form::Plain => usize::try_from(self.i16()?).ok()?,
            Form::Compact => self.unsigned_varint()?.checked_sub(1)?,
        };
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn end_of_structure(&mut self, form: Form) -> Option<()> {
        if matches!(form, Form::Plain) {
            return Some(());
        }
        for _ in 0..self.unsigned_varint()? {
            let _tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(length)?;
        }
        Some(())
    }

    fn partitions(&mut self, form: Form) -> Option<Vec<Partition>> {
        let mut found = Vec::new();
        for _ in 0..self.count(form)? {
            let topic = self.text(form)?;
            for _ in 0..self.count(form)? {
                found.push((topic.to_owned(), self.i32()?));
            }
            self.end_of_structure(form)?;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    fn partition(topic: &str, number: i32) -> Partition {
        (topic.to_owned(), number)
    }

    /// As Kafka 4.3.1 wrote it before a kill left its markers out.
    const PREPARED: &str = "0001000000000000000200120000ea6002040f437573746f6d65724576656e7473030000000300000002\
                            000c4f726465724576656e747303000000030000000100136d795f636f6e6e6563745f6f666673657473\
                            020000000500000001a2014bfe1b000001a2014bfe010100080000000000000002";
    const ONGOING: &str = "0001000000000000000200120000ea6001040f437573746f6d65724576656e74730200000003000c4f7264\
                           65724576656e7473020000000300136d795f636f6e6e6563745f6f666673657473020000000500000001a201\
                           4bfde1000001a2014bfde10100080000000000000002";
    const COMPLETE: &str = "0001000000000000000200120000ea600401000001a2014c0b87000001a2014bfe01010008\
                            0000000000000002";
    const KEY: &str = "00000014312d6f7574626f782d636f6e6e6563746f722d30";

    #[test]
    fn what_a_broker_wrote_is_read() {
        assert_eq!(id_of(&bytes(KEY)), Some("1-outbox-connector-0"));
        assert_eq!(partition_of("1-outbox-connector-0", 5), 3);
        let found = decision(&bytes(PREPARED)).unwrap();
        let partitions = [
            ("CustomerEvents", 3),
            ("CustomerEvents", 2),
            ("OrderEvents", 3),
            ("OrderEvents", 1),
            ("my_connect_offsets", 5),
        ];
        let partitions = partitions.map(|(topic, number)| partition(topic, number)).to_vec();
        assert_eq!(found, Decision { commit: true, partitions });
        for undecided in [ONGOING, COMPLETE] {
            assert_eq!(decision(&bytes(undecided)), None);
        }
    }

    #[test]
    fn an_abort_and_the_older_form_are_read_as_well() {
        let mut value = bytes("0000000000000000000200120000ea6003");
        value.extend(1_i32.to_be_bytes());
        value.extend(b"\0\x01t");
        value.extend(2_i32.to_be_bytes());
        value.extend([0, 0, 0, 4, 0, 0, 0, 9]);
        value.extend([0; 16]);
        let partitions = vec![partition("t", 4), partition("t", 9)];
        assert_eq!(decision(&value), Some(Decision { commit: false, partitions }));
    }

    #[test]
    fn bytes_of_another_form_decide_nothing() {
        let whole = bytes(PREPARED);
        // The last fields are not looked at.
        let partitions_end = whole.len() - 27;
        for end in 0..partitions_end {
            assert_eq!(decision(&whole[..end]), None, "{end}");
        }
        let mut newer = whole;
        newer[1] = 2;
        assert_eq!(decision(&newer), None);
        assert_eq!(decision(&bytes(&format!("{}ffffffffffff", &PREPARED[..34]))), None);
        assert_eq!(id_of(&bytes("0001000161")), None);
        assert_eq!(id_of(&bytes("0000000561")), None);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }
}
