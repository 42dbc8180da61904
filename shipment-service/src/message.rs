//! A Kafka message as the service sees it: owned bytes, and nothing of the client library.

/// One message of the order topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the epoch, as the broker or the producer stamped it.
    pub(crate) timestamp_millis: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    /// In the order of the record; a name may come more than once.
    pub(crate) headers: Vec<Header>,
    /// `None` is Kafka's null value, a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

/// One header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: Option<Vec<u8>>,
}

impl Message {
    /// The last header with this name: a later one overrides an earlier one, as in Kafka's own clients.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|header| header.name == name)?.value.as_deref()
    }
}
