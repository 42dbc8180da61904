//! `cargo demo`: starts the whole flow for real, plays the example's scenario, shows every hop, stays up for curl.

mod checks;
mod cli;
mod hints;
mod launch;
mod outbox;
mod scenario;
mod screen;
mod shipments;
mod sql;
mod topics;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use testbed::Settings;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody may be reading any more.
            let _ = writeln!(std::io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held.
fn run() -> anyhow::Result<bool> {
    testbed::guard::run_if_asked()?;
    let cli = Cli::parse();
    let settings = Settings::read();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let held = runtime.block_on(async {
        match &cli.command {
            Some(Command::Topic { name, follow }) => topics::print(&cli, name, *follow).await,
            Some(Command::Sql { database, query }) => sql::print(&cli, *database, query).await,
            None => Box::pin(launch::launch(&cli, &settings)).await,
        }
    });
    // A download that is still going on is not waited for.
    runtime.shutdown_background();
    held
}
