//! The offset topic's records: where each source partition of a connector stands. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What all records of the offset topic amount to: connector -> key bytes -> (partition, offset).
#[derive(Debug, Default)]
pub(in crate::connect) struct OffsetState {
    offsets: BTreeMap<String, BTreeMap<Vec<u8>, (Value, Value)>>,
}

impl OffsetState {
    /// Partition and offset of each source partition of a connector, with the key they are stored under.
    pub(in crate::connect) fn of(
        &self,
        connector: &str,
    ) -> impl Iterator<Item = (&[u8], &Value, &Value)> {
        let entries = self.offsets.get(connector).into_iter().flatten();
        entries.map(|(key, (partition, offset))| (key.as_slice(), partition, offset))
    }

    /// The offset that is stored under a key.
    pub(in crate::connect) fn get(&self, connector: &str, key: &str) -> Option<&Value> {
        self.offsets.get(connector)?.get(key.as_bytes()).map(|(_, offset)| offset)
    }

    /// Takes the next record of the topic.
    ///
    /// # Errors
    /// Why the record cannot be read; it is skipped.
    pub(in crate::connect) fn apply(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), String> {
        let parsed: Value = serde_json::from_slice(key).map_err(|error| error.to_string())?;
        let (connector, partition) = match parsed {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::String(connector), partition]) => (connector, partition),
                _ => return Err("the key is not [connector, partition]".to_owned()),
            },
            _ => return Err("the key is not an array".to_owned()),
        };
        let offset = value.map(serde_json::from_slice::<Value>).transpose();
        let offset = offset.map_err(|error| error.to_string())?.filter(Value::is_object);
        let offsets = self.offsets.entry(connector).or_default();
        match offset {
            // Kafka compares keys as bytes, so two spellings of one partition are two keys.
            Some(offset) => drop(offsets.insert(key.to_vec(), (partition, offset))),
            None => drop(offsets.remove(key)),
        }
        Ok(())
    }
}

/// The key of a connector's only source partition.
pub(in crate::connect) fn server_key(connector: &str, topic_prefix: &str) -> String {
    offset_key(connector, &json!({"server": topic_prefix}))
}

/// The key of a source partition, exactly as Kafka Connect writes it: no spaces.
pub(in crate::connect) fn offset_key(connector: &str, partition: &Value) -> String {
    json!([connector, partition]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_by_the_bytes_of_their_key() {
        let mut state = OffsetState::default();
        let key = offset_key("outbox-connector", &json!({"server": "dbserver1"}));
        assert_eq!(key, r#"["outbox-connector",{"server":"dbserver1"}]"#);
        state.apply(key.as_bytes(), Some(br#"{"lsn":25000,"txId":7}"#)).unwrap();
        assert_eq!(server_key("outbox-connector", "dbserver1"), key);
        assert_eq!(state.get("outbox-connector", &key), Some(&json!({"lsn": 25000, "txId": 7})));
        let (_, partition, offset) = state.of("outbox-connector").next().unwrap();
        assert_eq!((&partition["server"], &offset["lsn"]), (&json!("dbserver1"), &json!(25000)));
        state.apply(key.as_bytes(), None).unwrap();
        assert_eq!(state.of("outbox-connector").count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut state = OffsetState::default();
        for key in ["", "{}", "[1,{}]", r#"["a"]"#] {
            assert!(state.apply(key.as_bytes(), None).is_err(), "{key}");
        }
    }
}
