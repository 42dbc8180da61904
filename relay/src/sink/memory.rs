//! A sink that keeps records in memory and confirms when it is told to: for tests of everything before the sink.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Confirmation, Sink, SinkError};
use crate::progress::Sequence;
use crate::record::Record;

/// The sink's side; [`MemorySinkControl`] is the test's.
#[derive(Debug)]
pub struct MemorySink {
    shared: Arc<Shared>,
}

/// Looks at what arrived, and confirms or refuses it.
#[derive(Debug, Clone)]
pub struct MemorySinkControl {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    unconfirmed: VecDeque<Sequence>,
    confirmations: Vec<Confirmation>,
    /// Records that may wait for their confirmation; then the sink is full.
    room: usize,
    confirm_at_once: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemorySink {
    /// A sink with room for `room` records that wait for their confirmation.
    #[must_use]
    pub fn new(room: usize, confirm_at_once: bool) -> (Self, MemorySinkControl) {
        let shared = Arc::new(Shared::default());
        let mut state = shared.lock();
        state.room = room;
        state.confirm_at_once = confirm_at_once;
        drop(state);
        (Self { shared: Arc::clone(&shared) }, MemorySinkControl { shared })
    }
}

impl MemorySinkControl {
    /// Everything that was published so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().records.clone()
    }

    /// Confirms everything that waits; returns how many records that were.
    pub fn confirm_all(&self) -> usize {
        let mut state = self.shared.lock();
        let waiting = std::mem::take(&mut state.unconfirmed);
        let confirmed = waiting.len();
        let confirmations =
            waiting.into_iter().map(|sequence| Confirmation { sequence, outcome: Ok(()) });
        state.confirmations.extend(confirmations);
        drop(state);
        self.shared.changed.notify_one();
        confirmed
    }

    /// Confirms the oldest record that waits.
    pub fn confirm_oldest(&self) {
        self.finish_oldest(Ok(()));
    }

    /// From now on records are confirmed as they come.
    pub fn confirm_at_once(&self) {
        self.shared.lock().confirm_at_once = true;
        self.confirm_all();
    }

    /// Refuses the oldest record that waits.
    pub fn refuse_oldest(&self, error: SinkError) {
        self.finish_oldest(Err(error));
    }

    fn finish_oldest(&self, outcome: Result<(), SinkError>) {
        let mut state = self.shared.lock();
        if let Some(sequence) = state.unconfirmed.pop_front() {
            state.confirmations.push(Confirmation { sequence, outcome });
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Sink for MemorySink {
    fn has_room(&mut self, _: &Record) -> bool {
        let state = self.shared.lock();
        state.unconfirmed.len() < state.room
    }

    fn publish(&mut self, sequence: Sequence, record: Record) {
        let mut state = self.shared.lock();
        state.records.push(record);
        if state.confirm_at_once {
            state.confirmations.push(Confirmation { sequence, outcome: Ok(()) });
            self.shared.changed.notify_one();
        } else {
            state.unconfirmed.push_back(sequence);
        }
    }

    fn hand_over(&mut self) {}

    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>) {
        confirmations.append(&mut self.shared.lock().confirmations);
    }

    async fn confirmed(&mut self) {
        while self.shared.lock().confirmations.is_empty() {
            self.shared.changed.notified().await;
        }
    }
}
