//! `cargo chaos` in the size of a test run: what it counts after kills, and that it finds what it is there to find.

use testbed::chaos::{self, Counts, Plan, Report, Sabotage, TakeoverPlan};

/// The same on every run, so that a failure is a failure of the change at hand; the long form takes others.
const SEED: u64 = 5;

fn plan(kills: u32) -> Plan {
    Plan { kills, seed: Some(SEED), ..Plan::default() }
}

fn say(text: &str) {
    println!("{text}");
}

fn check(report: &Report) {
    println!("{}", report.line());
    assert_eq!(report.violations(), Vec::<String>::new(), "{}", report.line());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_nothing_reorder_nothing_and_ship_nothing_twice() {
    let report = Box::pin(chaos::run(&plan(50), say)).await.unwrap();
    check(&report);
    assert_eq!(report.kills, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_relay_dies_at_any_step_of_its_pipeline() {
    let report = Box::pin(chaos::die_at_each_step(&plan(1), say)).await.unwrap();
    check(&report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_exactly_once_a_reader_of_committed_records_sees_no_event_twice_whatever_is_killed() {
    let plan = Plan { exactly_once: true, ..plan(20) };
    let report = Box::pin(chaos::run(&plan, say)).await.unwrap();
    check(&report);
    assert_eq!(report.counts.duplicated, 0, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_exactly_once_no_event_comes_twice_when_the_relay_dies_at_any_step() {
    let plan = Plan { exactly_once: true, ..plan(1) };
    let report = Box::pin(chaos::die_at_each_step(&plan, say)).await.unwrap();
    check(&report);
    assert_eq!(report.counts.duplicated, 0, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_before_the_confirmation_is_found_as_lost_events() {
    let sabotage = Some(Sabotage::EarlyAcknowledgement);
    let report = Box::pin(chaos::run(&Plan { sabotage, ..plan(1) }, say)).await.unwrap();
    let Counts { committed, delivered, lost, .. } = report.counts;
    assert!(lost > 0 && delivered + lost == committed, "{}", report.line());
    assert!(!report.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shipment_side_that_takes_an_event_twice_is_found() {
    let sabotage = Some(Sabotage::NoDedup);
    let report = Box::pin(chaos::run(&Plan { sabotage, ..plan(1) }, say)).await.unwrap();
    let Counts { lost, shipped_again, handled_again, .. } = report.counts;
    assert_eq!(lost, 0, "{}", report.line());
    assert!(shipped_again > 0 && handled_again > 0, "{}", report.line());
    assert!(!report.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_goes_on_where_a_relay_was_killed_or_stands_still() {
    let plan = TakeoverPlan { rounds: 5, frozen: 1, exactly_once: false };
    let takeovers = Box::pin(chaos::takeover(&plan, say)).await.unwrap();
    takeovers.lines().iter().for_each(|line| println!("{line}"));
    check(&takeovers.report);
    assert_eq!((takeovers.killed.len(), takeovers.frozen.len()), (5, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_may_be_cut_slow_or_a_black_hole_and_everything_arrives_once() {
    let run = Box::pin(chaos::network(say)).await.unwrap();
    run.lines().iter().for_each(|line| println!("{line}"));
    check(&run.report);
    let silent: Vec<_> = run.healed.iter().filter(|one| one.said == Some(false)).collect();
    assert!(silent.is_empty(), "these did not say what they missed: {silent:?}");
}
