//! The figures beside their targets: a table for people, JSON for scripts.

use std::fmt::Write as _;

use serde::Serialize;

use super::drain::Round;
use super::latency::Latency;
use super::machine::Machine;
use super::program_figures::{Image, ProgramFigures};
use super::start::Starts;
use super::stopwatch::{Spread, median};

/// The relay's drain as a part of the raw rate.
const RATIO_MIN: f64 = 0.7;

/// The relay's peak memory while it drains. Megabytes of a million bytes.
const RSS_PEAK_MAX_MB: f64 = 30.0;

/// Commit to consumer. Milliseconds.
const LATENCY_P50_MAX_MS: f64 = 5.0;

const MEGABYTE: f64 = 1e6;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub starts: Starts,
    pub programs: Vec<ProgramFigures>,
    pub latency: Latency,
    pub drain: Drain,
    pub targets: Vec<Target>,
}

/// All rounds of the drain, and what they amount to.
#[derive(Debug, Clone, Serialize)]
pub struct Drain {
    /// Not counted: the broker is still compiling its code.
    pub warm_up: Round,
    pub rounds: Vec<Round>,
    pub ratio_median: f64,
    pub cpu_s_per_million_median: f64,
    /// The highest of all rounds.
    pub rss_peak_mb: f64,
}

/// A figure that has to be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    pub figure: &'static str,
    pub measured: f64,
    pub wanted: String,
    pub is_met: bool,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        starts: Starts,
        programs: Vec<ProgramFigures>,
        latency: Latency,
        warm_up: Round,
        rounds: Vec<Round>,
    ) -> Self {
        let all = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let drain = Drain {
            ratio_median: median(&all(|round| round.ratio)),
            cpu_s_per_million_median: median(&all(|round| round.relay.cpu_s_per_million)),
            rss_peak_mb: all(|round| megabytes(round.relay.rss_peak_bytes))
                .into_iter()
                .fold(0.0, f64::max),
            warm_up,
            rounds,
        };
        let targets = vec![
            Target {
                figure: RATIO,
                measured: drain.ratio_median,
                wanted: format!("at least {RATIO_MIN}"),
                is_met: drain.ratio_median >= RATIO_MIN,
            },
            Target {
                figure: RSS_PEAK,
                measured: drain.rss_peak_mb,
                wanted: format!("at most {RSS_PEAK_MAX_MB} MB"),
                is_met: drain.rss_peak_mb <= RSS_PEAK_MAX_MB,
            },
            Target {
                figure: LATENCY_P50,
                measured: latency.p50_ms,
                wanted: format!("below {LATENCY_P50_MAX_MS} ms"),
                is_met: latency.p50_ms < LATENCY_P50_MAX_MS,
            },
        ];
        Self { machine, starts, programs, latency, drain, targets }
    }

    /// Whether every target is reached.
    #[must_use]
    pub fn is_on_target(&self) -> bool {
        self.targets.iter().all(|target| target.is_met)
    }

    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Machine { cores, memory_mb, processor, load_before, profile, .. } = &self.machine;
        let Machine { postgres, mysql, kafka, .. } = &self.machine;
        let mut text = format!(
            "Measured with the {profile} profile on {cores} cores ({processor}), {:.0} GB of memory, \
             load {load_before:.2} before;\n{postgres}; {mysql}; {kafka}.\n\n",
            *memory_mb as f64 / 1000.0
        );
        align(&mut text, &self.figures());
        text.push_str("\nThe drain, round by round (rates in events/s, CPU in seconds per million events):\n\n");
        align(&mut text, &self.rounds());
        if self.programs.iter().any(|program| program.image == Image::NoEngine) {
            text.push_str("\nNo Docker engine answers here: image sizes are not measured.\n");
        }
        text
    }

    fn figures(&self) -> Vec<Vec<String>> {
        let mut lines = vec![line("", "measured", "target", "")];
        let starts = &self.starts;
        let mut start = |figure: &str, spread: &Spread| {
            lines.push(line(figure, &spread_text(spread), "", ""));
        };
        start("relay: start to first relayed event", &starts.relay_to_first_event);
        start("order-service: start to ready", &starts.order_service_to_ready);
        start("shipment-service: start to ready", &starts.shipment_service_to_ready);
        for ProgramFigures { name, idle_rss_bytes, binary_bytes, image } in &self.programs {
            let text = format!("{:.1} MB", megabytes(*idle_rss_bytes));
            lines.push(line(&format!("{name}: idle memory (RSS)"), &text, "", ""));
            let text = format!("{:.1} MB", megabytes(*binary_bytes));
            lines.push(line(&format!("{name}: binary"), &text, "", ""));
            let text = match image {
                Image::Bytes(bytes) => format!("{:.1} MB", megabytes(*bytes)),
                Image::NotBuilt => "not built here (docker compose build)".to_owned(),
                Image::NoEngine => "not measured".to_owned(),
            };
            lines.push(line(&format!("{name}: image"), &text, "", ""));
        }
        let Drain { rounds, ratio_median, cpu_s_per_million_median, rss_peak_mb, .. } = &self.drain;
        if let Some(Round { events, payload_bytes, .. }) = rounds.first() {
            let text = format!("{events} transactions, one event of {payload_bytes} bytes each");
            lines.push(line("drain: waiting", &text, "", ""));
        }
        lines.push(
            self.target_line(RATIO, &format!("{ratio_median:.2}, median of {}", rounds.len())),
        );
        lines.push(self.target_line(RSS_PEAK, &format!("{rss_peak_mb:.1} MB")));
        let text = format!("{cpu_s_per_million_median:.1} s per million events");
        lines.push(line("drain: relay's processor time", &text, "", ""));
        let Latency { events, rate, p50_ms, p95_ms, p99_ms, max_ms, relay_cores } = &self.latency;
        lines.push(self.target_line(LATENCY_P50, &format!("{p50_ms:.2} ms")));
        let text = format!("{p95_ms:.2} / {p99_ms:.2} / {max_ms:.2} ms");
        lines.push(line("latency: p95 / p99 / max", &text, "", ""));
        let text = format!("{events} events at {rate:.0}/s, relay on {relay_cores:.3} cores");
        lines.push(line("latency: measured over", &text, "", ""));
        lines
    }

    fn target_line(&self, figure: &str, measured: &str) -> Vec<String> {
        let target = self.targets.iter().find(|target| target.figure == figure);
        let wanted = target.map_or("", |target| &target.wanted);
        let verdict = target.map_or("", |target| if target.is_met { "ok" } else { "MISSED" });
        line(figure, measured, wanted, verdict)
    }

    fn rounds(&self) -> Vec<Vec<String>> {
        let titles = [
            "round",
            "raw",
            "relay",
            "ratio",
            "first event, s",
            "relay CPU",
            "walsender CPU raw / relay",
            "broker CPU",
            "peak RSS, MB",
            "cores busy elsewhere",
        ];
        let mut lines = vec![titles.map(str::to_owned).to_vec()];
        let numbers = ["warm-up".to_owned()].into_iter().chain((1..).map(|n: u32| n.to_string()));
        let rounds = std::iter::once(&self.drain.warm_up).chain(&self.drain.rounds);
        for (number, Round { raw, relay, ratio, .. }) in numbers.zip(rounds) {
            lines.push(vec![
                number,
                format!("{:.0}", raw.events_per_s),
                format!("{:.0}", relay.events_per_s),
                format!("{ratio:.2}"),
                format!("{:.3}", relay.first_event_after_s),
                format!("{:.1}", relay.cpu_s_per_million),
                format!(
                    "{:.1} / {:.1}",
                    raw.walsender_cpu_s_per_million, relay.walsender_cpu_s_per_million
                ),
                format!("{:.1}", relay.broker_cpu_s_per_million),
                format!("{:.1}", megabytes(relay.rss_peak_bytes)),
                format!("{:.2}", relay.cores_busy_elsewhere),
            ]);
        }
        lines
    }
}

const RATIO: &str = "drain: relay's rate / raw rate";
const RSS_PEAK: &str = "drain: relay's peak memory (RSS)";
const LATENCY_P50: &str = "latency: commit to consumer, p50";

fn line(figure: &str, measured: &str, wanted: &str, verdict: &str) -> Vec<String> {
    [figure, measured, wanted, verdict].map(str::to_owned).to_vec()
}

fn spread_text(Spread { min_s, median_s, max_s, count }: &Spread) -> String {
    format!("{median_s:.3} s ({min_s:.3} to {max_s:.3}, {count} starts)")
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

/// Writes the lines with each column as wide as its longest cell.
fn align(text: &mut String, lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut aligned = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(aligned, "{cell:width$}   ");
        }
        let _ = writeln!(text, "  {}", aligned.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut text = String::new();
        align(&mut text, &[line("a", "1", "", ""), line("long", "2", "x", "ok")]);
        assert_eq!(text, "  a      1\n  long   2   x   ok\n");
    }
}
