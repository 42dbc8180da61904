//! What is stored and what it covers, as values.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Reads a transaction with changes at these positions; gives those that are new.
fn transaction(tracker: &mut OffsetTracker, xid: u32, commit: u64, changes: &[u64]) -> Vec<u64> {
    tracker.begin_transaction(Some(xid.into()), Lsn::new(commit), 5);
    let new = changes.iter().copied().filter(|lsn| !tracker.change(Lsn::new(*lsn), "INSERT"));
    let new = new.collect();
    tracker.end_transaction(Lsn::new(commit + 8));
    new
}

fn resuming(stored: serde_json::Value) -> OffsetTracker {
    OffsetTracker::resuming(Some(SourceOffset::from_json(&stored).unwrap()))
}

#[test]
fn offsets_are_written_byte_for_byte_as_debezium_does() {
    let mut tracker = OffsetTracker::default();
    transaction(&mut tracker, 7, 200, &[100]);
    tracker.published(0, "t", true);
    tracker.confirm(1);
    let text = |told: Told| serde_json::to_string(&told.offset).unwrap();
    assert_eq!(
        text(tracker.told(Lsn::new(208)).unwrap()),
        r#"{"lsn_proc":100,"lsn_events_processed":1,"messageType":"INSERT","lsn":100,"txId":7,"ts_usec":5}"#
    );
    transaction(&mut tracker, 8, 400, &[300, 300]);
    tracker.published(1, "t", true);
    tracker.confirm(2);
    assert_eq!(
        text(tracker.told(Lsn::new(408)).unwrap()),
        r#"{"lsn_proc":300,"lsn_events_processed":2,"messageType":"INSERT","lsn_commit":208,"lsn":300,"txId":8,"ts_usec":5}"#
    );
    let snapshot = SourceOffset::of_snapshot(Lsn::new(9), Some(3), 4);
    assert_eq!(
        serde_json::to_string(&snapshot).unwrap(),
        r#"{"last_snapshot_record":true,"lsn":9,"txId":3,"ts_usec":4,"snapshot":"INITIAL","snapshot_completed":true}"#
    );
}

#[test]
fn an_offset_is_told_when_all_records_up_to_it_are_confirmed() {
    let mut tracker = OffsetTracker::default();
    for (sequence, lsn) in (0..5).zip([10, 20, 30, 40, 50]) {
        tracker.begin_transaction(Some(1), Lsn::new(100), 0);
        tracker.change(Lsn::new(lsn), "INSERT");
        tracker.published(sequence, "t", true);
    }
    let told = |tracker: &OffsetTracker| tracker.told(Lsn::ZERO).and_then(|told| told.offset.lsn);
    assert_eq!(told(&tracker), None);
    tracker.confirm(1);
    assert_eq!(told(&tracker), Some(10));
    tracker.confirm(4);
    assert_eq!(
        told(&tracker),
        Some(10),
        "one that is told early is wrong, one that is late is not"
    );
    tracker.confirm(5);
    assert_eq!(told(&tracker), Some(50));
}

#[test]
fn a_change_with_several_records_is_told_when_its_last_one_is_confirmed() {
    let mut tracker = OffsetTracker::default();
    transaction(&mut tracker, 7, 200, &[100]);
    tracker.published(0, "t", false);
    tracker.published(1, "t", true);
    tracker.confirm(1);
    assert!(tracker.told(Lsn::ZERO).is_none());
    tracker.confirm(2);
    assert!(tracker.told(Lsn::ZERO).is_some());
}

#[test]
fn an_idle_slot_moves_the_offset_and_keeps_what_it_names() {
    let mut tracker = OffsetTracker::default();
    transaction(&mut tracker, 7, 200, &[100]);
    tracker.published(0, "t", true);
    tracker.confirm(1);
    assert_eq!(tracker.told(Lsn::new(208)).unwrap().moved, None);
    let moved = tracker.told(Lsn::new(1_000)).unwrap().moved.unwrap();
    assert_eq!((moved.lsn_proc, moved.lsn, moved.lsn_commit), (Some(999), Some(100), None));
    let mut resumed = OffsetTracker::resuming(Some(moved));
    assert_eq!(transaction(&mut resumed, 7, 200, &[100]), [0; 0]);
    assert_eq!(
        transaction(&mut resumed, 8, 1_000, &[900]),
        [900],
        "it began before and ended after"
    );
}

#[test]
fn what_debezium_has_published_beyond_the_slot_is_skipped() {
    let stored = json!({"lsn_proc": 300, "lsn_events_processed": 1, "messageType": "INSERT",
        "lsn_commit": 208, "lsn": 300, "txId": 8, "ts_usec": 5});
    let mut tracker = resuming(stored);
    let resumption = tracker.begin(Some(Lsn::new(208)), Lsn::new(9_999), None);
    let expected = Resumption::AheadOfSlot { stored: Lsn::new(300), slot: Lsn::new(208) };
    assert_eq!(resumption, expected);
    assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [0; 0], "committed before");
    assert_eq!(transaction(&mut tracker, 8, 400, &[250, 300, 310]), [310], "the one it names");
    // This one wrote before the stored change, and was committed after it.
    assert_eq!(transaction(&mut tracker, 6, 500, &[90, 260, 450]), [90, 260, 450]);
}

#[test]
fn rows_that_share_a_position_are_counted() {
    let mut tracker = resuming(json!({"lsn_proc": 300, "lsn_events_processed": 2,
        "messageType": "INSERT", "lsn": 300, "txId": 8}));
    assert_eq!(transaction(&mut tracker, 8, 400, &[300, 300, 300]), [300]);
}

#[test]
fn an_offset_by_hand_is_honoured_by_commits() {
    let mut tracker = resuming(json!({"lsn": 300}));
    assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [0; 0]);
    assert_eq!(transaction(&mut tracker, 8, 400, &[250, 350]), [250, 350]);
}

#[test]
fn an_offset_that_cannot_be_of_this_server_skips_nothing() {
    let mut tracker = resuming(json!({"lsn": 5_000, "lsn_commit": 5_000}));
    let resumption = tracker.begin(Some(Lsn::new(10)), Lsn::new(1_000), None);
    assert_eq!(resumption, Resumption::OfAnotherServer { stored: Lsn::new(5_000) });
    assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [100]);
}

#[test]
fn an_offset_from_the_middle_of_a_snapshot_is_known() {
    let within = |stored| SourceOffset::from_json(&stored).unwrap().is_within_snapshot();
    assert!(within(json!({"lsn": 1, "snapshot": "INITIAL", "last_snapshot_record": false})));
    assert!(within(json!({"lsn": 1, "snapshot": true})));
    assert!(!within(json!({"lsn": 1, "snapshot": "INITIAL", "last_snapshot_record": true})));
    assert!(!within(json!({"lsn": 1})));
}

#[test]
fn a_topic_is_told_once_it_is_confirmed_and_again_when_it_is_written_to_again() {
    let mut tracker = OffsetTracker::default();
    tracker.published(0, "a", true);
    tracker.published(1, "b", true);
    tracker.published(2, "a", true);
    assert_eq!(tracker.take_topics(1), ["a"]);
    assert_eq!(tracker.take_topics(3), ["b"]);
    tracker.published(3, "b", true);
    assert_eq!(tracker.take_topics(4), ["b"]);
    assert_eq!(tracker.take_topics(4), [""; 0]);
}

#[test]
fn what_is_skipped_does_not_pull_the_offset_back() {
    let mut tracker = resuming(json!({"lsn_proc": 300, "lsn_events_processed": 1,
        "messageType": "INSERT", "lsn": 300, "txId": 8}));
    assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [0; 0]);
    // A heartbeat, for instance.
    tracker.published(0, "t", true);
    tracker.confirm(1);
    assert_eq!(tracker.told(Lsn::new(208)), None);
}

#[test]
fn a_transaction_whose_begin_was_told_is_known() {
    let stored = json!({"lsn_proc": 300, "lsn_events_processed": 1, "messageType": "INSERT",
        "lsn": 300, "txId": 8});
    let mut tracker = resuming(stored);
    assert!(tracker.begin_transaction(Some(7), Lsn::new(200), 0), "all of it was");
    assert!(tracker.is_covered());
    assert!(tracker.begin_transaction(Some(8), Lsn::new(400), 0), "a part of it was");
    assert!(!tracker.is_covered());
    assert!(!tracker.begin_transaction(Some(9), Lsn::new(500), 0));
}

#[test]
fn another_history_takes_nothing_over() {
    let identity = |timeline| {
        let (system_id, slot) = ("7".to_owned(), "s".to_owned());
        Some(SlotIdentity { system_id, timeline, slot, acknowledged_max: None })
    };
    let mut tracker = OffsetTracker::default();
    tracker.begin(None, Lsn::new(1_000), identity(1));
    transaction(&mut tracker, 7, 200, &[100]);
    tracker.published(0, "t", true);
    tracker.confirm(1);
    tracker.begin(None, Lsn::new(1_000), identity(1));
    assert!(tracker.told(Lsn::new(208)).is_some(), "a lost connection is no other history");
    tracker.begin(None, Lsn::new(1_000), identity(2));
    assert_eq!((tracker.told(Lsn::new(50)), tracker.last_commit()), (None, None));
}

#[test]
fn the_relay_s_own_fields_stand_after_debezium_s() {
    let mut tracker = OffsetTracker::default();
    let (system_id, slot) = ("7".to_owned(), "s".to_owned());
    let identity = SlotIdentity { system_id, timeline: 1, slot, acknowledged_max: None };
    tracker.begin(None, Lsn::new(1_000), Some(identity));
    transaction(&mut tracker, 7, 200, &[100]);
    tracker.published(0, "t", true);
    let text = serde_json::to_string(&tracker.position_at(Lsn::new(208), 0)).unwrap();
    assert_eq!(
        text,
        r#"{"lsn_proc":207,"lsn_events_processed":1,"messageType":"INSERT","lsn":100,"txId":7,"ts_usec":5,"relay_lsn_published":200,"relay_system_id":"7","relay_timeline":1,"relay_slot":"s","relay_lsn_flush":208}"#
    );
    let read = SourceOffset::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(read.identity().unwrap().acknowledged_max, Some(208));
    let of_debezium = SourceOffset::from_json(&json!({"lsn": 1, "unknown": true})).unwrap();
    assert_eq!(of_debezium.identity(), None);
}

/// Something that the server sends.
#[derive(Debug, Clone)]
enum Sent {
    /// A transaction with this many changes, some of them written before the commit of the transaction before it.
    Transaction { changes: u64, began_early: bool, sharing: bool },
    /// A message outside of transactions.
    Message,
    /// Nothing but WAL of others.
    Others,
}

/// What a task does before it dies.
#[derive(Debug, Clone)]
struct Life {
    /// After how many commits it dies.
    commits: usize,
    /// After how many changes it commits within a transaction, and how many transactions it gathers.
    within: usize,
    gathers: usize,
    /// How much of what may be acknowledged the slot has heard of.
    acknowledged: prop::sample::Index,
}

#[derive(Debug)]
struct Server {
    /// Transaction id (none: a message), position of the commit, end, and positions of the changes.
    sent: Vec<(Option<u64>, u64, u64, Vec<u64>)>,
}

impl Server {
    fn new(sent: &[Sent]) -> Self {
        let (mut lsn, mut all) = (80, Vec::new());
        for (xid, one) in (1_u64..).zip(sent) {
            match one {
                Sent::Others => {}
                Sent::Message => all.push((None, lsn + 8, lsn + 8, vec![lsn + 8])),
                Sent::Transaction { changes, began_early, sharing } => {
                    let first = if *began_early { lsn - 60 } else { lsn };
                    let step = if *sharing { 0 } else { 2 };
                    let positions = (0..*changes).map(|number| first + number * step).collect();
                    all.push((Some(xid), lsn + 40, lsn + 64, positions));
                }
            }
            lsn += 80;
        }
        Self { sent: all }
    }
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let transaction =
        (1_u64..6, any::<bool>(), any::<bool>()).prop_map(|(changes, began_early, sharing)| {
            Sent::Transaction { changes, began_early, sharing }
        });
    let one = prop_oneof![4 => transaction, 1 => Just(Sent::Message), 1 => Just(Sent::Others)];
    proptest::collection::vec(one, 1..12)
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (0_usize..4, 1_usize..4, 1_usize..3, any::<prop::sample::Index>()).prop_map(
        |(commits, within, gathers, acknowledged)| Life { commits, within, gathers, acknowledged },
    );
    proptest::collection::vec(life, 0..8)
}

/// What is in Kafka and in the slot.
#[derive(Debug, Default)]
struct World {
    published: Vec<(Option<u64>, usize)>,
    position: Option<SourceOffset>,
    slot: u64,
}

/// One task, from its start to its death or to the end of what was sent.
fn live(server: &Server, world: &mut World, life: &Life, identity: &SlotIdentity) {
    let mut tracker = OffsetTracker::resuming(world.position.clone());
    tracker.begin(Some(Lsn::new(world.slot)), Lsn::new(1 << 40), Some(identity.clone()));
    let (mut pending, mut handled, mut commits) = (Vec::new(), vec![world.slot], 0);
    let (mut gathered, mut sequence) = (0, 0);
    let mut commit = |world: &mut World, position, pending: &mut Vec<_>, handled: &[u64]| {
        if commits == life.commits {
            return false;
        }
        commits += 1;
        world.published.append(pending);
        world.position = Some(position);
        world.slot = world.slot.max(*life.acknowledged.get(handled));
        true
    };
    for (xid, commit_lsn, end, changes) in &server.sent {
        // What PostgreSQL leaves out for a slot that stands there.
        if *commit_lsn < world.slot.min(handled[0]) {
            continue;
        }
        tracker.begin_transaction(*xid, Lsn::new(*commit_lsn), 0);
        for (index, lsn) in changes.iter().enumerate() {
            if tracker.change(Lsn::new(*lsn), "INSERT") {
                continue;
            }
            tracker.published(sequence, "t", true);
            pending.push((xid.or(Some(commit_lsn << 32)), index));
            if xid.is_some() && pending.len() % life.within == 0 {
                let last = Lsn::new(*handled.last().unwrap());
                let Some(position) = tracker.position_within(last) else { continue };
                if !commit(world, position, &mut pending, &handled) {
                    return;
                }
                sequence += 1;
                tracker.confirm(sequence);
            }
        }
        tracker.end_transaction(Lsn::new(*end));
        handled.push(*end);
        gathered += 1;
        if gathered % life.gathers == 0 {
            let position = tracker.position_at(Lsn::new(*end), 0);
            if !commit(world, position, &mut pending, &handled) {
                return;
            }
            sequence += 1;
            tracker.confirm(sequence);
        }
    }
    let end = Lsn::new(*handled.last().unwrap());
    let position = tracker.position_at(end, 0);
    commit(world, position, &mut pending, &handled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is sent, wherever tasks commit and die, and however little the slot has heard of it.
    #[test]
    fn each_change_is_committed_once_and_in_order(
        sent in sent(), lives in lives(), last in any::<prop::sample::Index>()
    ) {
        let server = Server::new(&sent);
        let (system_id, slot) = ("7".to_owned(), "s".to_owned());
        let identity = SlotIdentity { system_id, timeline: 1, slot, acknowledged_max: None };
        let mut world = World::default();
        let at_last = Life {
            commits: usize::MAX, within: 2, gathers: 1, acknowledged: last,
        };
        for life in lives.iter().chain([&at_last]) {
            live(&server, &mut world, life, &identity);
            let flush = world.position.as_ref().and_then(SourceOffset::identity);
            let flush = flush.and_then(|identity| identity.acknowledged_max).unwrap_or(0);
            prop_assert!(world.slot <= flush, "the slot is beyond what the position says");
        }
        let expected: Vec<_> = server.sent.iter().flat_map(|(xid, commit, _, changes)| {
            (0..changes.len()).map(move |index| (xid.or(Some(commit << 32)), index))
        }).collect();
        let distinct: BTreeSet<_> = world.published.iter().collect();
        prop_assert_eq!(distinct.len(), world.published.len(), "a change was committed twice");
        prop_assert_eq!(&world.published, &expected);
    }
}

/// An offset of the relay's own: a change at 300 of transaction 7, which was committed at 400.
fn own() -> serde_json::Value {
    json!({
        "lsn_proc": 300, "lsn": 300, "txId": 7, "messageType": "INSERT", "lsn_commit": 358,
        "ts_usec": 5, "relay_lsn_published": 400,
        "relay_system_id": "1", "relay_timeline": 1, "relay_slot": "s"
    })
}

fn identity() -> Option<SlotIdentity> {
    SourceOffset::from_json(&own()).unwrap().identity().cloned()
}

fn begin_at(tracker: &mut OffsetTracker, slot: u64) {
    tracker.begin(Some(Lsn::new(slot)), Lsn::new(1_000), identity());
}

#[test]
fn nothing_is_acknowledged_before_the_transaction_that_was_published_last_has_come_again() {
    let mut tracker = resuming(own());
    begin_at(&mut tracker, 100);
    assert!(tracker.is_unproven());
    // Published before, as the offset says; and one that was committed between the change and its commit.
    assert!(transaction(&mut tracker, 6, 200, &[150]).is_empty());
    assert!(transaction(&mut tracker, 5, 350, &[140]).is_empty());
    assert!(tracker.is_unproven() && tracker.passed(Lsn::new(400)).is_none());
    tracker.begin_transaction(Some(7), Lsn::new(400), 5);
    assert!(!tracker.is_unproven() && tracker.passed(Lsn::new(500)).is_none());
}

#[test]
fn a_stream_beyond_it_is_of_another_history() {
    let mut tracker = resuming(own());
    begin_at(&mut tracker, 400);
    for (xid, commit, time) in [(9, 400, 5), (7, 400, 6), (7, 390, 5)] {
        tracker.begin_transaction(Some(xid), Lsn::new(commit), time);
        assert!(tracker.is_unproven(), "{xid} {commit} {time}");
    }
    let passed = tracker.passed(Lsn::new(401)).unwrap();
    assert_eq!((passed.xid, passed.commit_lsn), (7, Lsn::new(400)));
}

#[test]
fn a_connection_that_is_made_anew_is_checked_by_what_was_published_since() {
    let mut tracker = OffsetTracker::default();
    begin_at(&mut tracker, 10);
    assert!(!tracker.is_unproven(), "nothing was published");
    transaction(&mut tracker, 3, 200, &[150]);
    tracker.published(0, "t", true);
    tracker.confirm(1);
    begin_at(&mut tracker, 208);
    assert!(!tracker.is_unproven(), "it was acknowledged");
    begin_at(&mut tracker, 100);
    assert!(tracker.is_unproven());
    tracker.begin_transaction(Some(3), Lsn::new(200), 5);
    assert!(!tracker.is_unproven());
}

#[test]
fn what_need_not_come_again_is_not_waited_for() {
    let mut tracker = resuming(own());
    begin_at(&mut tracker, 401);
    assert!(!tracker.is_unproven(), "it was acknowledged");
    // Debezium's, or an operator's, also when it was stored once more with where it is a position.
    let mut foreign = own();
    foreign.as_object_mut().unwrap().remove("relay_lsn_published");
    let mut tracker = resuming(foreign);
    begin_at(&mut tracker, 100);
    assert!(!tracker.is_unproven());
    let again = serde_json::to_value(tracker.position_at(Lsn::new(100), 0)).unwrap();
    assert_eq!(again.get("relay_lsn_published"), None);
    // A logical message.
    let mut tracker = OffsetTracker::default();
    begin_at(&mut tracker, 10);
    tracker.begin_transaction(Some(3), Lsn::new(200), 5);
    tracker.change(Lsn::new(150), MESSAGE_KIND);
    tracker.published(0, "t", true);
    tracker.confirm(1);
    let told = tracker.told(Lsn::ZERO).unwrap().offset;
    assert_eq!(serde_json::to_value(told).unwrap().get("relay_lsn_published"), None);
    begin_at(&mut tracker, 100);
    assert!(!tracker.is_unproven());
    let mut tracker = resuming(own());
    tracker.begin(Some(Lsn::new(100)), Lsn::new(200), identity());
    assert!(!tracker.is_unproven(), "beyond the end of the WAL");
}
