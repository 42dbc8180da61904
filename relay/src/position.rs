//! Which changes were published already, across a lost connection to PostgreSQL; pure.

use pgoutput::Lsn;

use crate::source::slot::SystemIdentity;

/// The last change that was handled: the commit of its transaction and its index in it, counted from 1.
///
/// PostgreSQL sends again what was not acknowledged before the connection broke. Within one history of WAL, commit
/// positions grow, so that what comes again can be told from what is new.
#[derive(Debug, Default)]
pub struct Position {
    identity: SystemIdentity,
    last: (Lsn, u64),
}

impl Position {
    /// A stream begins, of a server whose WAL ends at `wal_end`. In another history of WAL positions mean nothing, and a
    /// server whose WAL ends before what it sent us has been set back: then everything counts as new.
    pub fn begin(&mut self, identity: SystemIdentity, wal_end: Lsn) {
        if self.identity != identity || self.last.0 > wal_end {
            *self = Self { identity, last: (Lsn::ZERO, 0) };
        }
    }

    /// Up to where changes of which history of WAL were handled.
    #[must_use]
    pub fn reached(&self) -> Option<(SystemIdentity, Lsn)> {
        (self.last.0 > Lsn::ZERO).then(|| (self.identity.clone(), self.last.0))
    }

    /// Moves to a change; false when it was handled before.
    pub fn advance(&mut self, commit_lsn: Lsn, index: u64) -> bool {
        let is_new = (commit_lsn, index) > self.last;
        if is_new {
            self.last = (commit_lsn, index);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: &str) -> SystemIdentity {
        SystemIdentity { system_id: "7".to_owned(), timeline: timeline.to_owned() }
    }

    #[test]
    fn what_comes_again_after_a_lost_connection_is_passed_over() {
        let mut position = Position::default();
        position.begin(history("1"), Lsn::new(100));
        assert!(position.advance(Lsn::new(10), 1));
        assert!(position.advance(Lsn::new(20), 1));
        assert!(position.advance(Lsn::new(20), 2));
        position.begin(history("1"), Lsn::new(100));
        assert!(!position.advance(Lsn::new(10), 1));
        assert!(!position.advance(Lsn::new(20), 2));
        assert!(position.advance(Lsn::new(20), 3));
        assert!(position.advance(Lsn::new(30), 1));
    }

    #[test]
    fn in_another_history_everything_is_new() {
        let mut position = Position::default();
        position.begin(history("1"), Lsn::new(100));
        assert!(position.advance(Lsn::new(20), 1));
        position.begin(history("2"), Lsn::new(100));
        assert!(position.advance(Lsn::new(10), 1));
    }

    #[test]
    fn a_server_that_was_set_back_is_another_history() {
        let mut position = Position::default();
        position.begin(history("1"), Lsn::new(100));
        assert!(position.advance(Lsn::new(90), 1));
        position.begin(history("1"), Lsn::new(50));
        assert!(position.advance(Lsn::new(60), 1));
    }
}
