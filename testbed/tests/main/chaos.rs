//! `cargo chaos` in the size of a test run: what it counts after kills, and that it finds what it is there to find.

use std::time::Duration;

use testbed::Program;
use testbed::chaos::{self, Counts, Plan, Report, Sabotage, TakeoverPlan};

/// The same on every run, so that a failure is a failure of the change at hand; the long form takes others.
const SEED: u64 = 5;

/// Builds our programs, where they are not fresh, and starts servers of its own.
const DEADLINE: Duration = Duration::from_secs(1200);

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
async fn a_transaction_without_its_position_is_found_as_events_that_came_twice() {
    let sabotage = Some(Sabotage::NoPosition);
    let plan = Plan { sabotage, exactly_once: true, ..plan(1) };
    let report = Box::pin(chaos::run(&plan, say)).await.unwrap();
    let Counts { lost, duplicated, .. } = report.counts;
    assert!(lost == 0 && duplicated > 0, "{}", report.line());
    assert!(!report.violations().is_empty());
}

/// By the command itself, whose last line and exit code are what a script looks at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shipment_side_that_takes_an_event_twice_is_found() {
    let arguments = ["--kills", "1", "--seed", "5", "--sabotage", "no-dedup"];
    let chaos = Program::start(env!("CARGO_BIN_EXE_chaos"), &arguments, &[]).unwrap();
    let status = chaos.wait(DEADLINE).await.unwrap();
    let output = chaos.output();
    assert_eq!(status.code(), Some(1), "{}", output.join("\n"));
    let broken = output.iter().find(|line| line.contains("BROKEN: ")).unwrap();
    assert!(broken.contains("second one of their order"), "{broken}");
    let last = output.iter().rfind(|line| line.starts_with("committed ")).unwrap();
    let figure = |name: &str| -> usize {
        let figures = last.split([',', ';']).map(str::trim);
        let mut of_name = figures.filter_map(|figure| figure.strip_prefix(name)?.strip_prefix(' '));
        of_name.next().unwrap().parse().unwrap()
    };
    assert_eq!((figure("lost"), figure("kills"), figure("seed")), (0, 1, 5), "{last}");
    assert!(figure("shipped again") > 0 && figure("handled again") > 0, "{last}");
    assert!(figure("committed") > 0 && figure("delivered") == figure("committed"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_goes_on_where_a_relay_was_killed_or_stands_still() {
    for (rounds, exactly_once) in [(5, false), (2, true)] {
        let plan = TakeoverPlan { rounds, frozen: 1, exactly_once };
        let takeovers = Box::pin(chaos::takeover(&plan, say)).await.unwrap();
        takeovers.lines().iter().for_each(|line| println!("{line}"));
        check(&takeovers.report);
        assert_eq!((takeovers.killed.len() as u32, takeovers.frozen.len()), (rounds, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_may_be_cut_slow_or_a_black_hole_and_everything_arrives_once() {
    let run = Box::pin(chaos::network(false, say)).await.unwrap();
    run.lines().iter().for_each(|line| println!("{line}"));
    check(&run.report);
    let silent: Vec<_> = run.healed.iter().filter(|one| one.said == Some(false)).collect();
    assert!(silent.is_empty(), "these did not say what they missed: {silent:?}");
}
