//! How much a producer may hold: records that were taken and are not delivered yet, and their weight.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Records that may wait for their confirmation: two full convoys. Measured: more adds memory (librdkafka's default
/// queue peaks at 84 MB) and no throughput.
pub(super) const RECORDS_MAX: usize = 3_584;

/// Bytes of keys, values and headers that may wait for their confirmation; a single record may be larger.
pub(super) const BYTES_MAX: usize = 6 << 20;

/// What is held. The pipeline takes, and the producers' threads release.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl InFlight {
    pub(super) fn records(&self) -> usize {
        self.records.load(Ordering::Acquire)
    }

    /// A record is taken whatever its size where nothing else is held.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let records = self.records();
        let held = self.bytes.load(Ordering::Relaxed);
        records == 0 || (records < RECORDS_MAX && held + bytes <= BYTES_MAX)
    }

    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Release);
    }

    /// Frees the room of a record. True: who waits for room should look. For each single record nobody need: two
    /// threads that wake each other for every record would take the time that the records need.
    pub(super) fn release(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let records = self.records.fetch_sub(1, Ordering::AcqRel) - 1;
        let half = BYTES_MAX / 2;
        let crosses_half = before > half && before.saturating_sub(bytes) <= half;
        records == 0 || records == RECORDS_MAX / 2 || crosses_half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_larger_than_the_limit_is_taken_alone() {
        let held = InFlight::default();
        assert!(held.has_room(BYTES_MAX + 1));
        held.take(BYTES_MAX + 1);
        assert!(!held.has_room(1));
        assert!(held.release(BYTES_MAX + 1));
        assert!(held.has_room(1));
    }

    #[test]
    fn who_waits_is_told_at_half_and_at_the_end() {
        let held = InFlight::default();
        for _ in 0..RECORDS_MAX {
            assert!(held.has_room(1));
            held.take(1);
        }
        assert!(!held.has_room(1));
        let told = (1..=RECORDS_MAX).filter(|_| held.release(1)).count();
        assert_eq!(told, 2);
    }
}
