//! Holds the servers that the test binaries share; started by the first of them. Argument: the folder for its socket.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    testbed::guard::run_if_asked()?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("give the folder for the socket; tests do that by themselves")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(testbed::supervisor::serve(&folder));
    // A fetch that is still going on is not waited for.
    runtime.shutdown_background();
    served
}
