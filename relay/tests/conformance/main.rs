//! The conformance runner: `cargo conformance [DIR]`, and the same over the project's own cases in `cargo test`.
//!
//! Each recorded case runs through the relay itself, from the connector's options to the records at the sink, on a real
//! PostgreSQL. Every case of every file is run; the number is compared with what the files hold.

mod case;
mod compare;
mod deviations;
mod log;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;

use case::Case;
use deviations::DEVIATIONS;

/// Cases that run at the same time. Each waits most of the time, for PostgreSQL or for the next acknowledgement.
const CONCURRENT: usize = 8;

/// Says that the arguments are a folder's name, not what `cargo test` hands to all tests.
const RUNNER: &str = "--cases";

/// What the command line asks for.
enum Request {
    /// The cases of this folder, those with this text in their name.
    Run(PathBuf, Option<String>),
    /// The project's own cases, as `cargo test` runs them.
    Test(PathBuf),
    /// What a list of tests or a filter for others asks for.
    Nothing,
}

fn main() -> ExitCode {
    match start() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<bool> {
    let (folder, filter, known) = match request(std::env::args().skip(1))? {
        Request::Run(folder, filter) => (folder, filter, &[][..]),
        Request::Test(folder) => (folder, None, &DEVIATIONS[..]),
        Request::Nothing => return Ok(true),
    };
    let (cases, total) = Case::read_all(&folder)?;
    log::keep()?;
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| filter.as_deref().is_none_or(|part| case.name.contains(part)))
        .collect();
    let total = if filter.is_some() { chosen.len() } else { total };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run_all(&chosen, total, known))
}

/// `--cases [DIR] [--name PART]` of the alias; without it, what `cargo test` says.
fn request(arguments: impl Iterator<Item = String>) -> Result<Request> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/vectors");
    let arguments: Vec<String> = arguments.collect();
    let Some((RUNNER, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    else {
        let is_other = |argument: &String| {
            argument == "--list"
                || (!argument.starts_with('-') && !"conformance".contains(argument.as_str()))
        };
        let is_nothing = arguments.iter().any(is_other);
        return Ok(if is_nothing { Request::Nothing } else { Request::Test(own) });
    };
    match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(Request::Run(own, None)),
        ["--name", part] => Ok(Request::Run(own, Some(part.to_owned()))),
        [folder] => Ok(Request::Run(PathBuf::from(folder), None)),
        [folder, "--name", part] => Ok(Request::Run(PathBuf::from(folder), Some(part.to_owned()))),
        _ => bail!("usage: cargo conformance [DIR] [--name PART]"),
    }
}

/// Runs the cases, tells each that fails with its first difference, and counts.
async fn run_all(cases: &[&Case], total: usize, known: &[(&str, &str)]) -> Result<bool> {
    let servers = testbed::servers().await.context("the test servers do not start")?;
    let mut results: Vec<(&str, Option<String>)> = futures::stream::iter(cases)
        .map(|case| async move {
            let difference = match run::run(case, servers).await {
                Ok(outcome) => compare::difference(case, &outcome),
                Err(error) => Some(format!("it could not be run: {error:#}")),
            };
            (case.name.as_str(), difference)
        })
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    results.sort_unstable();
    for (name, difference) in &results {
        if let Some(difference) = difference {
            let reason = known.iter().find(|(known, _)| known == name);
            let reason = reason.map(|(_, reason)| format!(" (known: {reason})"));
            println!("FAILED {name}{}: {difference}", reason.unwrap_or_default());
        }
    }
    let passed = results.iter().filter(|(_, difference)| difference.is_none()).count();
    let ran = results.len();
    if ran != total || total == 0 {
        println!("{ran} cases were run, the files hold {total}");
    }
    // A case that was not run has not passed.
    let failed = total.max(ran) - passed;
    println!("{passed} passed, {failed} failed");
    Ok(total > 0 && ran == total && as_known(&results, known))
}

/// Whether exactly the known deviations have failed.
fn as_known(results: &[(&str, Option<String>)], known: &[(&str, &str)]) -> bool {
    let mut is_so = true;
    for (name, difference) in results {
        let is_known = known.iter().any(|(known, _)| known == name);
        if is_known && difference.is_none() {
            println!("{name} passes: take it off the list of deviations");
        }
        is_so &= is_known == difference.is_some();
    }
    is_so
}
