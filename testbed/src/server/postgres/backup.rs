//! A copy of a server's files, to set it back to: what the restore of a disk's snapshot does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Postgres;

/// The files of a server that was stopped for it.
pub struct Backup(PathBuf);

impl Postgres {
    /// Stops the server, copies its data folder, slots included, and starts it again.
    ///
    /// # Errors
    /// When the copy cannot be made, or the server does not start again.
    pub async fn back_up(&mut self) -> Result<Backup> {
        self.stop().await;
        let backup = self.data.with_extension("backup");
        copy(&self.data, &backup)?;
        self.restart().await?;
        Ok(Backup(backup))
    }

    /// Gives the server the files of a backup in place of its own, and starts it.
    ///
    /// # Errors
    /// When they cannot be put in place, or the server does not start.
    pub async fn set_back(&mut self, backup: &Backup) -> Result<()> {
        self.stop().await;
        fs::remove_dir_all(&self.data).context("remove the data folder")?;
        copy(&backup.0, &self.data)?;
        self.restart().await
    }
}

/// With owners and modes, which PostgreSQL insists on.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().context("run cp")?;
    ensure!(copied.success(), "cp -a {} {}: {copied}", from.display(), to.display());
    Ok(())
}
