//! Plays the conformance vectors on a real PostgreSQL: slot, decoding, columns, router, converters; no Kafka.
//!
//! Every case is run. The areas in `PASSING` must pass whole; the others are counted, and their failures are printed
//! with the first difference, until they pass too.

mod case;
mod compare;
mod play;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;

use case::Case;

/// Cases that are played at the same time.
const CONCURRENT: usize = 4;

/// Cases that do not pass yet: the number may only fall.
const FAILING_MAX: usize = 12;

/// Areas of which every case passes.
const PASSING: [&str; 16] = [
    "binary",
    "combos",
    "event-router-test",
    "expand-json",
    "fields",
    "key-id-types",
    "legacy",
    "op-invalid",
    "placement",
    "routing",
    "schema-version",
    "smt-chain",
    "timestamps",
    "tombstone",
    "tracing",
    "types",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_cases_give_the_records_of_debezium() -> Result<()> {
    let cases =
        Case::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/vectors"))?;
    let servers = testbed::servers().await?;
    let filter = play::name_filter();
    let chosen =
        cases.iter().filter(|case| filter.as_deref().is_none_or(|part| case.name.contains(part)));
    ensure!(!cases.is_empty(), "there are no cases");
    let results: Vec<(&Case, Option<String>)> = futures::stream::iter(chosen)
        .map(|case| async move {
            let difference = match play::play(case, servers).await {
                Ok(played) => compare::difference(case, &played),
                Err(error) => Some(format!("{error:#}")),
            };
            (case, difference)
        })
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    report(&results)
}

fn report(results: &[(&Case, Option<String>)]) -> Result<()> {
    let mut by_area: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (case, difference) in results {
        let counts = by_area.entry(&case.area).or_default();
        match difference {
            None => counts.0 += 1,
            Some(difference) => {
                counts.1 += 1;
                failures.push(format!("FAILED {}: {difference}", case.name));
            }
        }
    }
    failures.sort_unstable();
    for failure in &failures {
        println!("{failure}");
    }
    for (area, (passed, failed)) in &by_area {
        println!("{area}: {passed} passed, {failed} failed");
    }
    let failed = failures.len();
    println!("{} passed, {failed} failed", results.len() - failed);
    if play::name_filter().is_some() {
        return Ok(());
    }
    for area in PASSING {
        let counts =
            by_area.get(area).with_context(|| format!("no case of area {area} was run"))?;
        ensure!(counts.1 == 0, "{} cases of area {area} failed, which passed before", counts.1);
    }
    ensure!(failed <= FAILING_MAX, "{failed} cases failed; {FAILING_MAX} did before");
    Ok(())
}
