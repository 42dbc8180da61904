//! `GET /metrics`: the health of the connectors in Prometheus's text format. Pure.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::readiness::STREAM_SILENCE_MAX;
use crate::dead_letter::ErrorCounts;
use crate::health::{Role, State};

/// The media type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The table; its head says how it is read.
const TABLE: &str = include_str!("metric_table.tsv");

/// The values of a slot's `wal_status`.
const WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

struct Metric {
    name: &'static str,
    kind: &'static str,
    words: &'static str,
}

static METRICS: LazyLock<Vec<Metric>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let metric = |row: &'static str| {
        let mut columns = row.split('\t');
        let (name, kind) = (columns.next()?, columns.next()?);
        Some(Metric { name, kind, words: columns.nth(2)? })
    };
    rows.filter_map(metric).collect()
});

/// One line: labels beside `connector`, and the value.
type Sample = (Vec<(&'static str, String)>, f64);

/// All metrics of all connectors.
pub(super) fn text(connectors: &[(String, State)]) -> String {
    let mut text = String::new();
    for metric in METRICS.iter() {
        let Metric { name, kind, words } = metric;
        let _ = write!(text, "# HELP {name} {words}\n# TYPE {name} {kind}\n");
        for (connector, state) in connectors {
            for (labels, value) in samples(name, state) {
                let _ = write!(text, "{name}{{connector=\"{}\"", escaped(connector));
                for (label, value) in labels {
                    let _ = write!(text, ",{label}=\"{}\"", escaped(&value));
                }
                let _ = writeln!(text, "}} {value}");
            }
        }
    }
    text
}

fn samples(metric: &str, state: &State) -> Vec<Sample> {
    if let Some(count) = of_errors(metric, &state.errors) {
        return alone(number(count));
    }
    match metric {
        "relay_connector_role" => one_of("role", &Role::WORDS, state.role.word()),
        "relay_connector_ready" => {
            alone(f64::from(u8::from(state.unready(STREAM_SILENCE_MAX).is_none())))
        }
        "relay_takeovers_total" => alone(number(state.takeovers)),
        "relay_slot_poll_errors_total" => alone(number(state.slot_errors)),
        "relay_canary_returned_total" => alone(number(state.canary.count())),
        _ if metric.starts_with("relay_slot_") => of_slot(metric, state),
        _ if state.role != Role::Streaming => Vec::new(),
        "relay_stream_received_lsn" => alone(number(state.received_lsn.as_u64())),
        "relay_stream_behind_seconds" => {
            alone(state.behind_for().unwrap_or_default().as_secs_f64())
        }
        "relay_canary_round_trip_seconds" => seconds(state.canary.round_trip()),
        "relay_canary_silence_seconds" => seconds(state.canary.silence(Instant::now())),
        _ => Vec::new(),
    }
}

fn of_errors(metric: &str, errors: &ErrorCounts) -> Option<u64> {
    let counter = match metric {
        "relay_errors_total" => &errors.failed,
        "relay_errors_left_out_total" => &errors.left_out,
        "relay_errors_logged_total" => &errors.logged,
        "relay_record_retries_total" => &errors.retries,
        "relay_dead_letters_total" => &errors.dead_letters,
        "relay_dead_letters_parked_total" => &errors.parked,
        "relay_dead_letters_replayed_total" => &errors.replayed,
        _ => return None,
    };
    Some(counter.load(Ordering::Relaxed))
}

fn of_slot(metric: &str, state: &State) -> Vec<Sample> {
    let Some(report) = &state.slot else { return Vec::new() };
    let look = &report.look;
    let samples = match metric {
        "relay_slot_active" => alone(f64::from(u8::from(look.active))),
        "relay_slot_wal_status" => one_of("status", &WAL_STATUSES, &look.wal_status),
        "relay_slot_confirmed_flush_lsn" => {
            let lsn = look.confirmed_flush_lsn;
            lsn.map(|lsn| alone(number(lsn.as_u64()))).unwrap_or_default()
        }
        "relay_slot_lag_bytes" => alone(number(report.lag_bytes)),
        "relay_slot_lag_seconds" => alone(report.lag.as_secs_f64()),
        "relay_slot_retained_bytes" => alone(number(report.retained_bytes)),
        "relay_slot_wal_bytes_per_second" => alone(report.wal_rate),
        "relay_slot_safe_wal_bytes" => {
            // A negative size says how far the limit is passed.
            look.safe_wal_size.map(|size| alone(signed(size))).unwrap_or_default()
        }
        "relay_slot_full_seconds" => seconds(report.full_in),
        "relay_slot_budget_bytes" => {
            report.budget_bytes.map(|bytes| alone(number(bytes))).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let of_slot = |(mut labels, value): Sample| {
        labels.insert(0, ("slot", report.slot.clone()));
        (labels, value)
    };
    samples.into_iter().map(of_slot).collect()
}

fn alone(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn seconds(time: Option<Duration>) -> Vec<Sample> {
    time.map(|time| alone(time.as_secs_f64())).unwrap_or_default()
}

fn one_of(label: &'static str, words: &[&'static str], is: &str) -> Vec<Sample> {
    let sample =
        |word: &&str| (vec![(label, (*word).to_owned())], f64::from(u8::from(*word == is)));
    words.iter().map(sample).collect()
}

/// Prometheus's numbers are floating; the last digits of a position of some petabytes go.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}

#[allow(clippy::cast_precision_loss)]
fn signed(value: i64) -> f64 {
    value as f64
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use pgoutput::Lsn;

    use super::*;
    use crate::health::Health;
    use crate::slot_figures::{SlotHistory, SlotLook};

    fn streaming() -> State {
        let health = Health::default();
        health.begin(Role::Streaming);
        health.received(Lsn::new(100));
        let begun = Instant::now();
        health.canary(|canary| {
            canary.begin(Duration::from_secs(5), begun);
            canary.sent("a".to_owned(), begun);
            canary.returned(b"a", begun);
        });
        let look = |wal_end: u64| SlotLook {
            active: true,
            wal_status: "extended".to_owned(),
            safe_wal_size: Some(5_000),
            restart_lsn: Some(Lsn::new(40)),
            confirmed_flush_lsn: Some(Lsn::new(60)),
            wal_end: Lsn::new(wal_end),
        };
        let mut history = SlotHistory::new("a_slot");
        history.report(look(100), Some(9_000), begun);
        health.saw_slot(history.report(look(200), Some(9_000), begun + Duration::from_secs(10)));
        health.look()
    }

    #[test]
    fn every_metric_of_the_table_is_told_of_a_connector_that_streams() {
        let connectors = [("a \"name\"".to_owned(), streaming())];
        let text = text(&connectors);
        for metric in METRICS.iter() {
            let told = format!("\n{}{{connector=\"a \\\"name\\\"\"", metric.name);
            assert!(text.contains(&told), "{} in\n{text}", metric.name);
        }
        for line in [
            "relay_connector_role{connector=\"a \\\"name\\\"\",role=\"streaming\"} 1\n",
            "relay_connector_role{connector=\"a \\\"name\\\"\",role=\"standby\"} 0\n",
            "relay_slot_lag_bytes{connector=\"a \\\"name\\\"\",slot=\"a_slot\"} 140\n",
            "relay_slot_retained_bytes{connector=\"a \\\"name\\\"\",slot=\"a_slot\"} 160\n",
            "relay_slot_full_seconds{connector=\"a \\\"name\\\"\",slot=\"a_slot\"} 500\n",
            ",status=\"extended\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_connector_that_stands_by_tells_its_role_and_nothing_of_the_slot() {
        let health = Health::default();
        health.begin(Role::StandingBy { reason: "in use".to_owned() });
        let text = text(&[("c".to_owned(), health.look())]);
        assert!(text.contains("relay_connector_role{connector=\"c\",role=\"standby\"} 1\n"));
        assert!(text.contains("relay_connector_ready{connector=\"c\"} 1\n"));
        assert!(!text.contains("relay_slot_active{"), "{text}");
    }
}
