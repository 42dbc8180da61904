//! A hot standby of a PostgreSQL server, which takes over its failover slots: streaming replication on one machine.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};

use super::Postgres;
use crate::database::postgres_options;
use crate::guard::User;
use crate::server::life::Life;
use crate::server::{RunFolder, free_port};

/// Its slot on the primary, and the name under which it is known there.
pub const STANDBY: &str = "standby";

/// Belongs to the primary's process or to its slots, or comes over the stream.
const NOT_COPIED: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "pg_replslot", "pg_wal", "backup_label"];

impl Postgres {
    /// Copies a running server (PostgreSQL 17 or newer) and starts the copy as its standby, on a port and in a folder
    /// of its own. It keeps the logical slots that may fail over (`sync_replication_slots`).
    ///
    /// # Errors
    /// When the copy cannot be made or does not start.
    pub async fn standby(&self, folder: &RunFolder) -> Result<Self> {
        let mut sql = PgConnection::connect_with(&postgres_options(&self.admin)).await?;
        let slot = format!("select pg_create_physical_replication_slot('{STANDBY}', true)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(slot)).execute(&mut sql).await?;
        let data = folder.subfolder("postgres", self.user)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        sqlx::raw_sql("select pg_backup_start('standby', true)").execute(&mut sql).await?;
        copy(&self.data, &data, self.user).context("copy the data folder")?;
        let (label,): (String,) = sqlx::query_as("select labelfile from pg_backup_stop(false)")
            .fetch_one(&mut sql)
            .await?;
        sql.close().await?;
        let (log, _) = folder.log_file("postgres")?;
        let mut standby = Self {
            bin: self.bin.clone(),
            data,
            folder: folder.clone(),
            user: self.user,
            options: super::Options { port: free_port(), ..self.options.clone() },
            admin: self.admin.clone(),
            version: self.version.clone(),
            life: Life::new("PostgreSQL's standby", log),
        };
        standby.admin.port = standby.options.port;
        standby.follow(self, &label)?;
        standby.restart().await?;
        Ok(standby)
    }

    /// Ends the recovery: from now on it is a primary, on a timeline of its own.
    ///
    /// # Errors
    /// When it is no standby, or does not come up as a primary within a minute.
    pub async fn promote(&self) -> Result<()> {
        let mut sql = PgConnection::connect_with(&postgres_options(&self.admin)).await?;
        let (is_promoted,): (bool,) =
            sqlx::query_as("select pg_promote()").fetch_one(&mut sql).await?;
        anyhow::ensure!(is_promoted, "the standby was not promoted within a minute");
        Ok(sql.close().await?)
    }

    /// Writes what makes a copy a standby.
    fn follow(&self, primary: &Self, label: &str) -> Result<()> {
        let owned = |name: &str, content: &str| {
            let path = self.data.join(name);
            fs::write(&path, content).with_context(|| format!("write {name}"))?;
            give(&path, self.user)
        };
        owned("backup_label", label)?;
        owned("standby.signal", "")?;
        let admin = &primary.admin;
        // The last value of a setting counts. The standby looks the slots up in a database, so one is named.
        let configuration = fs::read_to_string(self.data.join("postgresql.conf"))?;
        let own = format!(
            "port = {}\nprimary_slot_name = '{STANDBY}'\nhot_standby_feedback = on\n\
             sync_replication_slots = on\nprimary_conninfo = 'host={} port={} user={} password={} dbname={} \
             application_name={STANDBY}'\n",
            self.options.port, admin.host, admin.port, admin.user, admin.password, admin.name
        );
        owned("postgresql.conf", &(configuration + &own))
    }
}

/// Copies a data folder that is in use: what goes meanwhile is not missed, and the WAL brings what changes.
fn copy(from: &Path, to: &Path, user: Option<User>) -> Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let is_left_out = NOT_COPIED.iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700))?;
            give(&target, user)?;
            if !is_left_out {
                copy(&source, &target, user)?;
            }
        } else if !is_left_out {
            match fs::copy(&source, &target) {
                Ok(_) => give(&target, user)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(source.display().to_string()),
            }
        }
    }
    Ok(())
}

fn give(path: &Path, user: Option<User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    chown(path, Some(user.uid), Some(user.gid))
        .with_context(|| format!("give {} away", path.display()))
}
