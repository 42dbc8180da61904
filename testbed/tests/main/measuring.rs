//! `cargo measure` on a small scale: that it measures, not what.

use std::time::Duration;

use serde_json::Value;
use testbed::Program;

/// Builds our programs, where they are not fresh, and starts servers of its own.
const DEADLINE: Duration = Duration::from_secs(1200);

/// The JSON document between the lines that open and close it; progress was printed before.
fn json_of(output: &[String]) -> Option<Value> {
    let from = output.iter().position(|line| line == "{")?;
    let to = output.iter().rposition(|line| line == "}")?;
    serde_json::from_str(&output[from..=to].join("\n")).ok()
}

fn positive(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    let value = value.unwrap_or_else(|| panic!("no number at {pointer} in {report:#}"));
    assert!(value > 0.0, "{pointer} is {value}");
    value
}

#[tokio::test]
async fn a_small_measurement_has_every_figure_and_finds_every_event_in_order() {
    let arguments =
        "--events 500 --rounds 1 --starts 1 --idle-seconds 0 --latency-seconds 1 --json";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let measure = Program::start(env!("CARGO_BIN_EXE_measure"), &arguments, &[]).unwrap();
    let status = measure.wait(DEADLINE).await.unwrap();
    // Not zero when an event is lost, repeated or out of order.
    assert!(status.success(), "{status}\n{}", measure.tail());
    let report = json_of(&measure.output()).unwrap();
    for figure in [
        "/starts/relay_to_first_event/median_s",
        "/starts/order_service_to_ready/median_s",
        "/starts/shipment_service_to_ready/median_s",
        "/latency/p50_ms",
        "/latency/p99_ms",
        "/latency/max_ms",
        "/drain/ratio_median",
        "/drain/rss_peak_mb",
        "/drain/rounds/0/raw/events_per_s",
        "/drain/rounds/0/relay/events_per_s",
        "/machine/cores",
        "/machine/memory_mb",
    ] {
        positive(&report, figure);
    }
    for program in 0..3 {
        positive(&report, &format!("/programs/{program}/idle_rss_bytes"));
        positive(&report, &format!("/programs/{program}/binary_bytes"));
        assert!(report.pointer(&format!("/programs/{program}/image")).is_some());
    }
    let events = positive(&report, "/drain/rounds/0/events");
    assert_eq!(events, 500.0);
    // Begin, insert, delete and commit of each event at least: the raw read saw them all.
    assert!(positive(&report, "/drain/rounds/0/raw/messages") >= 4.0 * events);
    assert_eq!(report["targets"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_plan_that_measures_nothing_is_refused() {
    let measure = Program::start(env!("CARGO_BIN_EXE_measure"), &["--rounds", "0"], &[]).unwrap();
    let status = measure.wait(Duration::from_secs(60)).await.unwrap();
    assert_eq!(status.code(), Some(2), "{}", measure.tail());
}
