//! Keys whose later events wait behind a dead letter; pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A key that is parked, in one topic or, where the dead letter's topic is not known, in all.
///
/// A hash stands for both: two keys with the same one would be parked together, which keeps the order of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ParkedKey(u64);

impl ParkedKey {
    fn of(topic: Option<&str>, key: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (topic, key).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// More keys than may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyKeys;

/// Where a dead letter stands in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// The keys that are parked.
#[derive(Debug, Default)]
pub struct ParkedKeys {
    /// With the last dead letter of each, where it was read from the topic.
    keys: HashMap<ParkedKey, Option<At>>,
    max: usize,
}

impl ParkedKeys {
    /// Room for so many keys.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { keys: HashMap::new(), max }
    }

    /// Whether events of this key wait.
    #[must_use]
    pub fn contains(&self, topic: &str, key: &[u8]) -> bool {
        !self.keys.is_empty()
            && (self.keys.contains_key(&ParkedKey::of(Some(topic), key))
                || self.keys.contains_key(&ParkedKey::of(None, key)))
    }

    /// Parks a key.
    ///
    /// # Errors
    /// When there is no room for another one.
    pub fn park(
        &mut self,
        topic: Option<&str>,
        key: &[u8],
        at: Option<At>,
    ) -> Result<(), TooManyKeys> {
        let parked = ParkedKey::of(topic, key);
        if self.keys.len() >= self.max && !self.keys.contains_key(&parked) {
            return Err(TooManyKeys);
        }
        self.keys.insert(parked, at);
        Ok(())
    }

    /// Every dead letter of a partition up to an offset was replayed: frees the keys that have none behind it.
    pub fn replayed(&mut self, through: At) {
        let is_done = |at: &At| at.partition == through.partition && at.offset <= through.offset;
        self.keys.retain(|_, last| !last.as_ref().is_some_and(is_done));
    }

    /// Takes in what another set has, whatever the room: it was in a set of the same size before.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parked_in_its_topic_and_in_all_where_that_is_not_known() {
        let mut parked = ParkedKeys::new(10);
        assert!(!parked.contains("Orders", b"1"));
        parked.park(Some("Orders"), b"1", None).unwrap();
        assert!(parked.contains("Orders", b"1"));
        assert!(!parked.contains("Customers", b"1") && !parked.contains("Orders", b"2"));
        parked.park(None, b"2", None).unwrap();
        assert!(parked.contains("Orders", b"2") && parked.contains("Customers", b"2"));
    }

    #[test]
    fn keys_are_free_when_their_last_dead_letter_was_replayed() {
        let at = |partition, offset| At { partition, offset };
        let mut parked = ParkedKeys::new(10);
        parked.park(Some("t"), b"1", Some(at(0, 5))).unwrap();
        parked.park(Some("t"), b"1", Some(at(0, 9))).unwrap();
        parked.park(Some("t"), b"2", Some(at(0, 7))).unwrap();
        parked.park(Some("t"), b"3", Some(at(1, 2))).unwrap();
        parked.replayed(at(0, 8));
        assert!(parked.contains("t", b"1") && !parked.contains("t", b"2"));
        assert!(parked.contains("t", b"3"), "another partition");
    }

    #[test]
    fn memory_for_keys_is_bounded() {
        let mut parked = ParkedKeys::new(1);
        parked.park(Some("t"), b"1", None).unwrap();
        assert_eq!(parked.park(Some("t"), b"1", None), Ok(()), "it is there already");
        assert_eq!(parked.park(Some("t"), b"2", None), Err(TooManyKeys));
    }
}
