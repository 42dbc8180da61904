//! The outcome of a run: the figures, whether the promise was kept, and the line that says so.

use serde::Serialize;

use super::count::Counts;

/// What a kill may repeat in any case: what is in flight, and published since the offset was stored last.
const REPEATED_PER_KILL: usize = 50;

/// After an outage much is published at once, and a kill just then may repeat a thousand and what is in flight; so that one
/// event in so many may come again besides. Measured were 2 to 8 in a hundred of a whole run. A relay that stored its
/// offset once a minute repeated 35, and one that began anew after each kill would repeat most.
const REPEATED_ONE_IN: usize = 8;

/// How a run went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What was counted from the databases and the topics.
    pub counts: Counts,
    /// `kill -9`s in all.
    pub kills: usize,
    /// Of these, the ones of the relay: each may make events come again. A relay that lives repeats nothing.
    pub kills_with_repeats: usize,
    /// Repeats the run.
    pub seed: u64,
    /// The parts that were killed, as `--only` takes them; `None` when it was all.
    pub only: Option<String>,
    /// Whether the connector was registered with `exactly.once.support=required`.
    pub exactly_once: bool,
    /// From the first order to the last shipment, in seconds.
    pub seconds: f64,
}

impl Report {
    /// What was broken of the promise, in words; empty when it was kept.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let Counts { copies_max, .. } = self.counts;
        let mut found = Vec::new();
        let mut zero = |count: usize, what: &str| {
            if count > 0 {
                found.push(format!("{count} {what}"));
            }
        };
        let counts = &self.counts;
        zero(counts.lost, "events were committed and are not in their topic");
        zero(counts.unknown, "records are of no event that was committed");
        zero(counts.reordered, "events were overtaken by a later one of their key");
        zero(counts.unshipped, "orders have no shipment");
        zero(counts.shipped_again, "shipments are a second one of their order");
        zero(counts.shipped_unknown, "orders have a shipment and were never committed");
        zero(
            counts.unhandled,
            "events are in their topic and were not handled by the shipment side",
        );
        zero(counts.handled_again, "events were handled twice by the shipment side");
        if self.exactly_once {
            zero(counts.duplicated, "committed records are a second one of their event");
        } else if copies_max > 1 + self.kills_with_repeats {
            found.push(format!(
                "an event has {copies_max} records, after {} kills that can repeat one",
                self.kills_with_repeats
            ));
        } else if counts.duplicated > self.repeats_max() {
            found.push(format!(
                "{} records came again of {} events, after {} kills that can repeat some: at most {} should",
                counts.duplicated,
                counts.committed,
                self.kills_with_repeats,
                self.repeats_max()
            ));
        }
        for damage in &counts.damaged {
            found.push(format!("MySQL finds its own tables damaged ({damage}): run it again"));
        }
        if counts.committed == 0 {
            found.push("nothing was committed, so nothing was shown".to_owned());
        }
        found
    }

    /// How many records may come again where events may come again at all.
    const fn repeats_max(&self) -> usize {
        self.counts.committed / REPEATED_ONE_IN + self.kills_with_repeats * REPEATED_PER_KILL
    }

    /// The figures of several runs on one line.
    #[must_use]
    pub fn line_of_all(reports: &[Self]) -> String {
        let sum = |figure: fn(&Self) -> usize| reports.iter().map(figure).sum::<usize>();
        let once = |report: &Self| usize::from(report.exactly_once) * report.counts.duplicated;
        format!(
            "all {} runs: committed {}, delivered {}, lost {}, duplicated {} (exactly once {}), reordered {}, unknown {}; \
             orders {}, shipped {}, shipped again {}, handled again {}, unhandled {}; kills {}, {:.0} s",
            reports.len(),
            sum(|report| report.counts.committed),
            sum(|report| report.counts.delivered),
            sum(|report| report.counts.lost),
            sum(|report| report.counts.duplicated),
            sum(once),
            sum(|report| report.counts.reordered),
            sum(|report| report.counts.unknown),
            sum(|report| report.counts.orders),
            sum(|report| report.counts.shipped),
            sum(|report| report.counts.shipped_again),
            sum(|report| report.counts.handled_again),
            sum(|report| report.counts.unhandled),
            sum(|report| report.kills),
            reports.iter().map(|report| report.seconds).sum::<f64>(),
        )
    }

    /// All figures on one line, the last that a run prints.
    #[must_use]
    pub fn line(&self) -> String {
        let Counts { committed, delivered, lost, duplicated, reordered, .. } = self.counts;
        let Counts { orders, shipped, shipped_again, handled_again, unknown, .. } = self.counts;
        let unhandled = self.counts.unhandled;
        format!(
            "committed {committed}, delivered {delivered}, lost {lost}, duplicated {duplicated}, reordered {reordered}, \
             unknown {unknown}; orders {orders}, shipped {shipped}, shipped again {shipped_again}, handled again \
             {handled_again}, unhandled {unhandled}; kills {}, seed {}, {}{}, {:.0} s",
            self.kills,
            self.seed,
            self.only.as_ref().map(|parts| format!("only {parts}, ")).unwrap_or_default(),
            if self.exactly_once { "exactly once" } else { "at least once" },
            self.seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(counts: Counts, exactly_once: bool) -> Report {
        let (kills, seed, seconds) = (5, 1, 1.0);
        Report { counts, kills, kills_with_repeats: 1, seed, exactly_once, seconds, only: None }
    }

    fn good() -> Counts {
        Counts {
            committed: 2,
            delivered: 2,
            copies_max: 1,
            orders: 1,
            shipped: 1,
            ..Counts::default()
        }
    }

    #[test]
    fn a_run_without_a_fault_has_no_violation() {
        assert_eq!(report(good(), true).violations(), Vec::<String>::new());
    }

    #[test]
    fn every_fault_alone_is_a_violation() {
        for broken in [
            Counts { lost: 1, ..good() },
            Counts { unknown: 1, ..good() },
            Counts { reordered: 1, ..good() },
            Counts { unshipped: 1, ..good() },
            Counts { shipped_again: 1, ..good() },
            Counts { handled_again: 1, ..good() },
            Counts { shipped_unknown: 1, ..good() },
            Counts { unhandled: 1, ..good() },
            Counts { copies_max: 3, ..good() },
            Counts { duplicated: REPEATED_PER_KILL + 1, ..good() },
            Counts::default(),
        ] {
            assert_eq!(report(broken.clone(), false).violations().len(), 1, "{broken:?}");
        }
    }

    #[test]
    fn damaged_tables_are_told_as_such() {
        let damaged = vec!["Shipment: Corrupt".to_owned()];
        let violations = report(Counts { damaged, ..good() }, false).violations();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(violations[0].contains("(Shipment: Corrupt)"), "{violations:?}");
    }

    #[test]
    fn the_last_line_has_the_figures_in_their_order() {
        let counts = Counts { duplicated: 3, ..good() };
        let (at_least, once) = (report(counts, false), report(good(), true));
        assert!(
            at_least
                .line()
                .starts_with("committed 2, delivered 2, lost 0, duplicated 3, reordered 0, ")
        );
        let all = Report::line_of_all(&[at_least, once]);
        let expected = "all 2 runs: committed 4, delivered 4, lost 0, duplicated 3 (exactly once 0), reordered 0, ";
        assert!(all.starts_with(expected), "{all}");
        assert!(all.ends_with("kills 10, 2 s"), "{all}");
    }

    #[test]
    fn an_event_that_came_again_breaks_the_promise_of_exactly_once_only() {
        let again = Counts { duplicated: 1, copies_max: 2, ..good() };
        assert!(report(again.clone(), false).violations().is_empty());
        assert_eq!(report(again, true).violations().len(), 1);
    }
}
