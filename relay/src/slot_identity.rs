//! Whether a stored position belongs to the slot that a stream is about to begin from; pure.
//!
//! A position is a number in one history of WAL. Compared with a slot of another history it would hide what was never
//! published, so whoever stores one says with it what it is a position in.

use pgoutput::Lsn;
use serde::{Deserialize, Serialize};

use crate::source::slot::SystemIdentity;
use crate::source_offset::SourceOffset;

/// What a stored position is a position in. Debezium reads its own fields by name, passes over these, and writes
/// offsets without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotIdentity {
    /// One number per database cluster, as text: it is larger than the integers of JSON in Java may be.
    #[serde(rename = "relay_system_id")]
    pub system_id: String,
    /// Changes at a promotion or a point-in-time recovery.
    #[serde(rename = "relay_timeline")]
    pub timeline: u32,
    /// Name of the slot.
    #[serde(rename = "relay_slot")]
    pub slot: String,
    /// The slot was not acknowledged beyond this; none where that is not known.
    #[serde(rename = "relay_lsn_flush", default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_max: Option<u64>,
}

/// What is found where a stream is about to begin.
#[derive(Debug, Clone)]
pub struct Found {
    /// Of the server.
    pub system: SystemIdentity,
    /// Timelines before the present one, each with the position at which it ended.
    pub history: Vec<(u32, Lsn)>,
    /// Where the server's WAL ends.
    pub wal_end: Lsn,
    /// Name of the connector's slot.
    pub slot: String,
    /// What was acknowledged to it; none: it is not there.
    pub confirmed_flush_lsn: Option<Lsn>,
}

/// Why a stored position says nothing about the slot, each with what that means and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another database cluster.
    #[error(
        "the stored position {position} is of the database cluster with system identifier {stored}, and this one is \
         {found}: events that the other one had committed and the relay had not published are not here, and positions \
         of the two cannot be compared"
    )]
    OtherSystem {
        /// The position.
        position: Lsn,
        /// Whose it is.
        stored: String,
        /// Who answers now.
        found: String,
    },
    /// A history of WAL that does not contain the position.
    #[error(
        "the stored position {position} is on timeline {stored}, and the server is on timeline {found}{branch}: the \
         database was set back or a standby that lagged was promoted; events that were published up to {position} may \
         not be in it, and what it has committed below that position would be taken for published"
    )]
    OtherTimeline {
        /// The position.
        position: Lsn,
        /// Its timeline.
        stored: u32,
        /// The server's.
        found: u32,
        /// Where the server's history leaves the stored timeline, in words.
        branch: String,
    },
    /// The server's WAL ends before the position.
    #[error(
        "the stored position {position} is beyond the end of the server's WAL at {wal_end}: the database was set back, \
         to a backup for instance; events that were published up to {position} may not be in it, and what it commits \
         below that position would be taken for published"
    )]
    SetBack {
        /// The position.
        position: Lsn,
        /// Where the WAL ends.
        wal_end: Lsn,
    },
    /// The server has the position, and not what was there.
    #[error(
        "transaction {xid}, which was published last and committed at {position}, does not come again from replication slot \
         \"{slot}\", which stands before it: the database was set back, to a copy of its files for instance, and has gone \
         on from there; what it committed since, up to that position, would be taken for published. (A publication that \
         does not have the tables of that transaction would have the same effect.)"
    )]
    OtherPast {
        /// Name of the slot.
        slot: String,
        /// Where it was committed.
        position: Lsn,
        /// Its id.
        xid: u64,
    },
    /// The slot was dropped.
    #[error(
        "replication slot \"{slot}\" is gone, which the stored position {position} belongs to: events that were \
         committed after that position may not have been published, and no slot holds them"
    )]
    Dropped {
        /// Name of the slot.
        slot: String,
        /// The position.
        position: Lsn,
    },
    /// Another slot, which begins later.
    #[error(
        "the stored position {position} belongs to replication slot \"{stored}\", and slot \"{found}\"{begins}: \
         events that were committed between the two are not in it"
    )]
    OtherSlot {
        /// The position.
        position: Lsn,
        /// Whose it is.
        stored: String,
        /// The slot that is configured.
        found: String,
        /// Where that one begins, in words.
        begins: String,
    },
    /// The slot of that name is not the one that was acknowledged.
    #[error(
        "replication slot \"{slot}\" stands at {confirmed}, and the relay has acknowledged it up to {acknowledged} at the \
         most: it was dropped and made anew, or moved by somebody else; events that were committed between {acknowledged} \
         and {confirmed} were not published and are not in it"
    )]
    Moved {
        /// Name of the slot.
        slot: String,
        /// Where it stands.
        confirmed: Lsn,
        /// Where it was left.
        acknowledged: Lsn,
    },
}

impl Mismatch {
    /// Whether another look at the end of the WAL may show that it was looked at too early.
    #[must_use]
    pub const fn may_be_stale(&self) -> bool {
        matches!(self, Self::SetBack { .. })
    }
}

/// Compares a stored position with what is found. A position without an identity (Debezium's, or an operator's) is
/// taken to be of the slot, unless `is_strict`: then it must at least be within the server's WAL.
///
/// # Errors
/// Why the stream must not begin.
pub fn check(stored: &SourceOffset, found: &Found, is_strict: bool) -> Result<(), Mismatch> {
    let Some(position) = stored.furthest() else { return Ok(()) };
    let set_back = Mismatch::SetBack { position, wal_end: found.wal_end };
    let Some(identity) = stored.identity() else {
        return if is_strict && position > found.wal_end { Err(set_back) } else { Ok(()) };
    };
    check_history(identity, position, found)?;
    if position > found.wal_end {
        return Err(set_back);
    }
    check_slot(identity, position, found)
}

fn check_history(identity: &SlotIdentity, position: Lsn, found: &Found) -> Result<(), Mismatch> {
    if identity.system_id != found.system.system_id {
        let (stored, found) = (identity.system_id.clone(), found.system.system_id.clone());
        return Err(Mismatch::OtherSystem { position, stored, found });
    }
    // What cannot be read is no reason to stop: every server tells a number.
    let Ok(timeline) = found.system.timeline.parse::<u32>() else { return Ok(()) };
    if identity.timeline == timeline {
        return Ok(());
    }
    let ended = found.history.iter().find(|(known, _)| *known == identity.timeline);
    let branch = match ended {
        Some((_, end)) if position <= *end => return Ok(()),
        Some((_, end)) => format!(", which left the other at {end}"),
        None => ", whose history does not know the other".to_owned(),
    };
    Err(Mismatch::OtherTimeline { position, stored: identity.timeline, found: timeline, branch })
}

fn check_slot(identity: &SlotIdentity, position: Lsn, found: &Found) -> Result<(), Mismatch> {
    let (slot, confirmed) = (found.slot.clone(), found.confirmed_flush_lsn);
    if identity.slot != slot {
        // One that begins before the position has everything behind it.
        if confirmed.is_some_and(|confirmed| confirmed <= position) {
            return Ok(());
        }
        let begins = match confirmed {
            Some(confirmed) => format!(" begins at {confirmed}"),
            None => " is still to be made".to_owned(),
        };
        let stored = identity.slot.clone();
        return Err(Mismatch::OtherSlot { position, stored, found: slot, begins });
    }
    let Some(confirmed) = confirmed else { return Err(Mismatch::Dropped { slot, position }) };
    match identity.acknowledged_max.map(Lsn::new) {
        Some(acknowledged) if confirmed > acknowledged => {
            Err(Mismatch::Moved { slot, confirmed, acknowledged })
        }
        _ => Ok(()),
    }
}

/// Reads what PostgreSQL keeps of the timelines before one: lines of number, position and reason.
#[must_use]
pub fn parse_history(text: &str) -> Vec<(u32, Lsn)> {
    let ended = |line: &str| {
        let mut columns = line.split_whitespace();
        Some((columns.next()?.parse().ok()?, columns.next()?.parse().ok()?))
    };
    text.lines().filter_map(ended).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stored(position: u64, timeline: u32, acknowledged_max: Option<u64>) -> SourceOffset {
        let identity = SlotIdentity {
            system_id: "7".to_owned(),
            timeline,
            slot: "s".to_owned(),
            acknowledged_max,
        };
        let offset = json!({"lsn_proc": position, "lsn": position});
        SourceOffset::from_json(&offset).unwrap().with_identity(Some(identity))
    }

    fn found(timeline: u32, confirmed: Option<u64>) -> Found {
        Found {
            system: SystemIdentity { system_id: "7".to_owned(), timeline: timeline.to_string() },
            history: Vec::new(),
            wal_end: Lsn::new(1_000),
            slot: "s".to_owned(),
            confirmed_flush_lsn: confirmed.map(Lsn::new),
        }
    }

    #[test]
    fn a_position_of_this_slot_is_taken() {
        for confirmed in [1, 400, 500, 600] {
            assert_eq!(check(&stored(500, 1, Some(600)), &found(1, Some(confirmed)), true), Ok(()));
        }
    }

    #[test]
    fn a_slot_that_is_beyond_what_was_acknowledged_is_another_one() {
        let refused = check(&stored(500, 1, Some(600)), &found(1, Some(601)), true);
        assert!(matches!(refused, Err(Mismatch::Moved { .. })), "{refused:?}");
        // At least once, the position is stored after the acknowledgement, and says nothing of it.
        assert_eq!(check(&stored(500, 1, None), &found(1, Some(900)), false), Ok(()));
    }

    #[test]
    fn a_slot_that_is_gone_is_told() {
        let refused = check(&stored(500, 1, None), &found(1, None), false).unwrap_err();
        assert!(matches!(refused, Mismatch::Dropped { .. }));
        assert!(refused.to_string().contains("\"s\" is gone"), "{refused}");
    }

    #[test]
    fn another_slot_must_begin_before_the_position() {
        let of_other = |confirmed| Found { slot: "t".to_owned(), ..found(1, confirmed) };
        assert_eq!(check(&stored(500, 1, Some(1)), &of_other(Some(500)), true), Ok(()));
        for confirmed in [Some(501), None] {
            let refused = check(&stored(500, 1, Some(1)), &of_other(confirmed), false);
            assert!(matches!(refused, Err(Mismatch::OtherSlot { .. })), "{refused:?}");
        }
    }

    #[test]
    fn another_system_is_told_whatever_the_positions() {
        let mut other = found(1, Some(400));
        other.system.system_id = "8".to_owned();
        let refused = check(&stored(500, 1, None), &other, false);
        assert!(matches!(refused, Err(Mismatch::OtherSystem { .. })), "{refused:?}");
    }

    #[test]
    fn a_promoted_standby_that_had_everything_is_this_history() {
        let promoted = |end| Found { history: vec![(1, Lsn::new(end))], ..found(2, Some(400)) };
        assert_eq!(check(&stored(500, 1, Some(500)), &promoted(500), true), Ok(()));
        for (timeline, found) in [(1, promoted(499)), (1, found(2, Some(400))), (3, promoted(999))]
        {
            let refused = check(&stored(500, timeline, Some(500)), &found, true);
            assert!(matches!(refused, Err(Mismatch::OtherTimeline { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_position_beyond_the_wal_is_refused_where_it_is_known_to_be_of_this_server() {
        let refused = check(&stored(1_001, 1, None), &found(1, Some(400)), false);
        assert!(matches!(refused, Err(Mismatch::SetBack { .. })), "{refused:?}");
        let unknown = SourceOffset::from_json(&json!({"lsn": 1_001})).unwrap();
        assert_eq!(check(&unknown, &found(1, Some(400)), false), Ok(()));
        assert!(check(&unknown, &found(1, Some(400)), true).is_err_and(|told| told.may_be_stale()));
    }

    #[test]
    fn the_history_file_of_a_timeline_is_read() {
        let text =
            "1\t0/3000158\tno recovery target specified\n\n2\t0/50001A8\tbefore 2026-11-21\n";
        assert_eq!(parse_history(text), [(1, Lsn::new(0x300_0158)), (2, Lsn::new(0x500_01A8))]);
        assert_eq!(parse_history("not a history"), []);
    }

    proptest! {
        /// Whatever was dropped, set back or moved: a stream begins only where nothing between the position and the
        /// slot can be missing.
        #[test]
        fn a_stream_begins_only_behind_what_was_acknowledged(
            position in 1_u64..1_500, acknowledged in 1_u64..1_500, confirmed in 1_u64..1_500,
            is_other_slot: bool,
        ) {
            let mut found = found(1, Some(confirmed));
            if is_other_slot {
                found.slot = "t".to_owned();
            }
            let stored = stored(position, 1, Some(acknowledged));
            let taken = check(&stored, &found, true).is_ok();
            let bound = if is_other_slot { position } else { acknowledged };
            prop_assert_eq!(taken, confirmed <= bound && position <= 1_000);
        }
    }
}
