//! What can go wrong between the relay and PostgreSQL.

use std::time::Duration;

use pgoutput::DecodeError;

use crate::slot_identity::Mismatch;

/// An error that PostgreSQL reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// SQLSTATE, five characters.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// Detail and hint where PostgreSQL gave them.
    pub detail: Option<String>,
    /// What PostgreSQL suggests.
    pub hint: Option<String>,
    /// Whether the session ended with it.
    pub is_fatal: bool,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        for (name, text) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Why the source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No TCP connection, or it broke.
    #[error("cannot {doing} PostgreSQL at {address}: {source}")]
    Io {
        /// `connect to`, `read from` or `write to`.
        doing: &'static str,
        /// Where it was dialled.
        address: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The other side did not answer in time.
    #[error("PostgreSQL at {address} did not answer within {} s", waited.as_secs())]
    Timeout {
        /// Where it was dialled.
        address: String,
        /// How long was waited.
        waited: Duration,
    },
    /// PostgreSQL refused something.
    #[error("PostgreSQL refused to {doing}: {error}")]
    Server {
        /// What was asked for.
        doing: String,
        /// Its answer.
        error: Box<ServerError>,
    },
    /// The password exchange failed on our side.
    #[error("authentication at PostgreSQL failed: {reason}")]
    Authentication {
        /// What failed and what to do.
        reason: String,
    },
    /// No encrypted connection as it was asked for.
    #[error("TLS with PostgreSQL at {address} is not possible: {reason}")]
    Tls {
        /// Where it was dialled.
        address: String,
        /// What failed and what to do.
        reason: String,
    },
    /// Bytes that do not follow the protocol.
    #[error("PostgreSQL sent bytes that do not follow the protocol: {0}")]
    Protocol(String),
    /// A replication message that cannot be decoded.
    #[error("a replication message cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// PostgreSQL ended the stream.
    #[error("PostgreSQL at {address} closed the connection")]
    Closed {
        /// Where it was dialled.
        address: String,
    },
    /// The server asks again and again for what Kafka's confirmations do not allow yet.
    #[error(
        "PostgreSQL at {address} waits for an acknowledgement, as it does when it shuts down, but Kafka has not \
         confirmed everything yet; the stream is left and taken up again"
    )]
    ServerWaits {
        /// Where it was dialled.
        address: String,
    },
    /// Another session reads from the slot.
    #[error(
        "replication slot \"{slot}\" is in use by the session with process id {pid}; standing by until it is free"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// Process id of PostgreSQL's backend; 0 when it ended meanwhile.
        pid: i32,
    },
    /// The slot cannot be used as it is.
    #[error("replication slot \"{slot}\" cannot be used: {reason}")]
    SlotUnusable {
        /// The slot.
        slot: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The stored position says nothing about the slot that is there, or about its absence.
    #[error(transparent)]
    PositionUnusable(#[from] Box<Mismatch>),
    /// The publication cannot be used as it is.
    #[error("publication \"{publication}\" cannot be used: {reason}")]
    PublicationUnusable {
        /// The publication.
        publication: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Nothing to capture yet.
    #[error("waiting for a table that matches {filter} in database \"{database}\"")]
    TableMissing {
        /// The include lists as configured.
        filter: String,
        /// The database.
        database: String,
    },
}
