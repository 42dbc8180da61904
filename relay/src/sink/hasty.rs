//! A sink that confirms what it has only been handed: the mistake that the chaos test must find. Tests alone can turn
//! it on (see `failpoint`).

use super::{Confirmation, Sink};
use crate::progress::Sequence;
use crate::record::Record;

/// Breaks the third rule of [`Sink`].
pub(crate) struct HastySink<S> {
    sink: S,
    confirmations: Vec<Confirmation>,
}

impl<S> HastySink<S> {
    pub(crate) const fn new(sink: S) -> Self {
        Self { sink, confirmations: Vec::new() }
    }
}

impl<S: Sink + Send> Sink for HastySink<S> {
    fn has_room(&mut self, record: &Record) -> bool {
        self.sink.has_room(record)
    }

    fn publish(&mut self, sequence: Sequence, record: Record) {
        self.sink.publish(sequence, record);
        self.confirmations.push(Confirmation { sequence, outcome: Ok(()) });
    }

    fn hand_over(&mut self) {
        self.sink.hand_over();
    }

    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>) {
        self.sink.take_confirmations(&mut Vec::new());
        confirmations.append(&mut self.confirmations);
    }

    async fn confirmed(&mut self) {
        self.sink.hand_over();
        if self.confirmations.is_empty() {
            self.sink.confirmed().await;
        }
    }
}
