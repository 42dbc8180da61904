//! What the relay must know of the server: its version and how long it waits for a sign of life.

use std::time::Duration;

use super::connection::Connection;
use super::error::SourceError;

/// The oldest version that the relay works with: 13 tells in `pg_replication_slots` whether a slot has lost its WAL.
const VERSION_MIN: u32 = 130_000;

/// Since this version pgoutput sends logical decoding messages.
const VERSION_MESSAGES: u32 = 140_000;

/// Since this version slots can be kept by a standby.
const VERSION_FAILOVER: u32 = 170_000;

/// Status interval where the server would wait for ever.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Patience with a server that would wait for ever: its default of `wal_sender_timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A shorter one would give up a server that is merely busy.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Settings of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSettings {
    /// `server_version_num`, for example 170002.
    pub version: u32,
    /// `wal_sender_timeout`; zero: it waits for ever.
    pub wal_sender_timeout: Duration,
}

impl ServerSettings {
    /// How often a status update must be sent so that the server keeps the connection: three in its timeout.
    #[must_use]
    pub fn status_interval(&self) -> Duration {
        if self.wal_sender_timeout.is_zero() {
            return STATUS_INTERVAL_MAX;
        }
        (self.wal_sender_timeout / 3).min(STATUS_INTERVAL_MAX)
    }

    /// How long the server may leave a request for a sign of life unanswered: as long as it waits for ours. It looks at
    /// requests at least twice in that time, even within a transaction that takes long to decode.
    #[must_use]
    pub fn silence_max(&self) -> Duration {
        if self.wal_sender_timeout.is_zero() {
            return SILENCE_MAX;
        }
        self.wal_sender_timeout.max(SILENCE_MIN)
    }

    /// Whether pgoutput takes the option `messages`.
    #[must_use]
    pub const fn has_logical_messages(&self) -> bool {
        self.version >= VERSION_MESSAGES
    }

    /// Whether a slot can be made that a standby keeps.
    #[must_use]
    pub const fn has_failover_slots(&self) -> bool {
        self.version >= VERSION_FAILOVER
    }
}

/// Lets the server end this session after `silence_max`, where it would wait longer: a relay that is frozen or cut off must
/// not keep the slot from the one that stands by.
///
/// # Errors
/// When the connection breaks.
pub async fn bound_silence(
    connection: &mut Connection,
    settings: &mut ServerSettings,
    silence_max: Option<Duration>,
) -> Result<(), SourceError> {
    let Some(silence_max) = silence_max else { return Ok(()) };
    let timeout = settings.wal_sender_timeout;
    if timeout.is_zero() || timeout > silence_max {
        let sql = format!("set wal_sender_timeout = {}", silence_max.as_millis());
        connection.query("set wal_sender_timeout", &sql).await?;
        settings.wal_sender_timeout = silence_max;
    }
    Ok(())
}

/// Asks for the settings, and checks that the server can do logical replication.
///
/// # Errors
/// When `wal_level` is too low, the version too old, or the connection breaks.
pub async fn settings(connection: &mut Connection) -> Result<ServerSettings, SourceError> {
    let sql = "select name, setting from pg_settings where name in \
               ('server_version_num', 'wal_level', 'wal_sender_timeout') \
               union all select 'in_recovery', pg_is_in_recovery()::text";
    let rows = connection.query("look at the settings", sql).await?;
    let setting = |name: &str| {
        rows.iter()
            .find(|row| row.first().is_some_and(|first| first.as_deref() == Some(name)))
            .and_then(|row| row.get(1).cloned().flatten())
            .unwrap_or_default()
    };
    let refused = |code: &str, message: String, hint: &str| SourceError::Server {
        doing: "stream changes".to_owned(),
        error: Box::new(super::ServerError {
            code: code.to_owned(),
            message,
            hint: Some(hint.to_owned()),
            ..super::ServerError::default()
        }),
    };
    if setting("in_recovery") == "true" {
        // cannot_connect_now: it may be promoted in a moment, so that this is tried again.
        let message = "the server is a standby or still recovering".to_owned();
        return Err(refused("57P03", message, "the relay streams from the primary"));
    }
    let unusable = |message: String, hint: &str| refused("0A000", message, hint);
    if setting("wal_level") != "logical" {
        let message = format!("wal_level is `{}`, it must be `logical`", setting("wal_level"));
        return Err(unusable(message, "set wal_level = logical and restart PostgreSQL"));
    }
    let version = setting("server_version_num").parse().unwrap_or_default();
    if version < VERSION_MIN {
        let message = format!("server_version_num is {version}");
        return Err(unusable(message, "the relay needs PostgreSQL 13 or later"));
    }
    // pg_settings gives it in its base unit, milliseconds.
    let timeout_ms = setting("wal_sender_timeout").parse().unwrap_or_default();
    Ok(ServerSettings { version, wal_sender_timeout: Duration::from_millis(timeout_ms) })
}
