//! What a sink publishes: topic, key, value and headers as bytes.

/// One Kafka record, converted and ready to be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Topic as the router named it; nothing has checked that it is a legal name.
    pub topic: String,
    /// The partition that the router asked for; `None` lets the partitioner choose by key.
    pub partition: Option<i32>,
    /// `None`: no key (null); `Some(vec![])`: an empty one.
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order; a name may occur twice, a value may be null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; `None`: the producer takes its clock.
    pub timestamp: Option<i64>,
}
