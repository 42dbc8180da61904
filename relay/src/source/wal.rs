//! The WAL stream: frames in, acknowledgements out, on one replication connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use pgoutput::Lsn;
use pgoutput::frame::{self, Frame, StatusUpdate};
use postgres_protocol::message::backend;
use tokio::time::Instant;

use super::connection::{ANSWER_TIMEOUT, Connection, MESSAGE_LENGTH_MAX, refused};
use super::error::SourceError;
use super::silence::Silence;

/// PostgreSQL counts its clock from 2000-01-01 UTC; this is that day in microseconds since 1970.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A buffer above this size is given back once it is empty: one large row must not cost its memory for ever.
const INBOX_KEPT: usize = 1 << 20;

/// A read that brought this much was worth its wake-up: the next one is made at once. It is well below the window of a
/// near server, so that everything that gathered behind the window is read before the next rest.
const WORTHWHILE_BYTES: usize = 8 * 1024;

/// A read that brought this much, a dozen events, belongs to a stream under load.
const LOAD_BYTES: usize = 4 * 1024;

/// Two reads that are closer than this belong to a stream that flows. At 200 events a second they are 5 ms apart, so that
/// a single event never waits.
const FLOW_INTERVAL: Duration = Duration::from_millis(3);

/// How long bytes gather: the resolution of the runtime's timer. Not longer, because the walsender stops when the
/// socket's buffer is full, which holds little more than what it sends in this time.
const GATHER_TIME: Duration = Duration::from_millis(1);

/// Length of a message's header: its kind and its length.
const HEADER: usize = 5;

/// What a stream is started with.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Replication slot, which must exist.
    pub slot: String,
    /// Publications, which must exist.
    pub publication: String,
    /// Ask for logical decoding messages (PostgreSQL 14 and later).
    pub messages: bool,
    /// More options of pgoutput, with their values.
    pub parameters: Vec<(String, String)>,
    /// How long the server may leave a request for a sign of life unanswered.
    pub silence_max: Duration,
}

/// A running stream from a replication slot.
#[derive(Debug)]
pub struct WalStream {
    connection: Connection,
    /// Bytes of the frame that `next_frame` gave last; they are dropped at its next call.
    taken: usize,
    received_lsn: Lsn,
    filled_at: Instant,
    silence: Silence,
    gathering_until: Option<Instant>,
}

impl WalStream {
    /// Starts streaming from where the slot stands: the slot's `confirmed_flush_lsn` is the one position.
    ///
    /// # Errors
    /// When the server refuses, for instance because the slot is active elsewhere.
    pub async fn start(
        connection: Connection,
        options: &StreamOptions,
    ) -> Result<Self, SourceError> {
        let mut more = String::from(if options.messages { ", messages 'true'" } else { "" });
        for (name, value) in &options.parameters {
            let value = quote_replication_literal(value);
            more.push_str(&format!(", {} {value}", quote_identifier(name)));
        }
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}{more})",
            quote_identifier(&options.slot),
            quote_replication_literal(&quote_identifier(&options.publication)),
        );
        let address = connection.address().to_owned();
        tokio::time::timeout(ANSWER_TIMEOUT, Self::begin(connection, &command, options))
            .await
            .unwrap_or(Err(SourceError::Timeout { address, waited: ANSWER_TIMEOUT }))
    }

    async fn begin(
        mut connection: Connection,
        command: &str,
        options: &StreamOptions,
    ) -> Result<Self, SourceError> {
        connection.send_command(command).await?;
        loop {
            // CopyBothResponse is the one message that postgres-protocol does not know.
            if connection.inbox.first() == Some(&b'W') {
                match take_message_length(&connection.inbox)? {
                    Some(length) => {
                        connection.inbox.advance(length);
                        let now = Instant::now();
                        return Ok(Self {
                            connection,
                            taken: 0,
                            received_lsn: Lsn::ZERO,
                            filled_at: now,
                            silence: Silence::new(options.silence_max, now),
                            gathering_until: None,
                        });
                    }
                    None => connection.fill().await?,
                }
            } else if connection.inbox.is_empty() {
                connection.fill().await?;
            } else if let backend::Message::ErrorResponse(body) = connection.message().await? {
                return Err(refused(&format!("stream from slot \"{}\"", options.slot), &body));
            }
        }
    }

    /// The next frame that has arrived whole; `None` when more must be read with [`Self::fill`].
    ///
    /// # Errors
    /// When the server ends the stream, reports an error, or sends what is no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, SourceError> {
        self.connection.inbox.advance(std::mem::take(&mut self.taken));
        loop {
            let Some(length) = take_message_length(&self.connection.inbox)? else {
                self.release_memory();
                return Ok(None);
            };
            match self.connection.inbox[0] {
                b'd' => {
                    self.taken = length;
                    let frame = frame::decode(&self.connection.inbox[HEADER..length])?;
                    let (Frame::WalData(frame::WalData { wal_end, .. })
                    | Frame::Keepalive(frame::Keepalive { wal_end, .. })) = frame;
                    self.received_lsn = self.received_lsn.max(wal_end);
                    return Ok(Some(frame));
                }
                b'E' => return Err(self.server_error(length)),
                // CopyDone, CommandComplete: the server ends the stream, as it does at a shutdown.
                b'c' | b'C' => {
                    let address = self.connection.address().to_owned();
                    return Err(SourceError::Closed { address });
                }
                // Notices and parameter changes may come at any time.
                _ => self.connection.inbox.advance(length),
            }
        }
    }

    /// Waits for bytes and reads them. Cancel safe.
    ///
    /// In a stream that flows, bytes are left to gather for a moment: a reader that wakes up for each transaction has the
    /// walsender, itself and the broker spend more time on waking each other than on the events.
    ///
    /// # Errors
    /// When the connection is closed or breaks, or the server gives no sign of life although it was asked.
    pub async fn fill(&mut self) -> Result<(), SourceError> {
        self.connection.inbox.advance(std::mem::take(&mut self.taken));
        if let Some(gathered) = self.gathering_until {
            // A point in time, not a length: this future is dropped and made anew whenever something else happens.
            tokio::time::sleep_until(gathered).await;
        }
        let before = self.connection.inbox.len();
        self.fill_or_give_up().await?;
        let (now, length) = (Instant::now(), self.connection.inbox.len() - before);
        let gather = gather_time(length, now.duration_since(self.filled_at));
        self.gathering_until = gather.map(|time| now + time);
        self.filled_at = now;
        self.silence.heard(now);
        if gather.is_some() {
            self.connection.rest()?;
        }
        Ok(())
    }

    async fn fill_or_give_up(&mut self) -> Result<(), SourceError> {
        let Some(patience) = self.silence.patience(Instant::now()) else {
            return self.connection.fill().await;
        };
        let Ok(filled) = tokio::time::timeout(patience, self.connection.fill()).await else {
            let address = self.connection.address().to_owned();
            return Err(SourceError::Timeout { address, waited: self.silence.max() });
        };
        filled
    }

    /// Tells the server that everything up to `confirmed_lsn` is stored elsewhere and may be forgotten.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn acknowledge(&mut self, confirmed_lsn: Lsn) -> Result<(), SourceError> {
        let update = StatusUpdate {
            received_lsn: self.received_lsn.max(confirmed_lsn),
            flushed_lsn: confirmed_lsn,
            client_time_us: now_us() - POSTGRES_EPOCH_US,
            reply_requested: self.silence.asks(Instant::now()),
        };
        self.connection.send_copy_data(&update.encode()).await
    }

    /// How far the server's WAL has come through the stream.
    #[must_use]
    pub const fn received_lsn(&self) -> Lsn {
        self.received_lsn
    }

    /// Where the server was dialled.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connection.address()
    }

    /// Ends the stream, so that the slot is free at once.
    pub async fn close(self) {
        self.connection.close().await;
    }

    fn server_error(&mut self, length: usize) -> SourceError {
        let mut message = self.connection.inbox.split_to(length);
        match backend::Message::parse(&mut message) {
            Ok(Some(backend::Message::ErrorResponse(body))) => refused("go on streaming", &body),
            _ => SourceError::Protocol("an error message that cannot be read".to_owned()),
        }
    }

    fn release_memory(&mut self) {
        let inbox = &mut self.connection.inbox;
        if inbox.is_empty() && inbox.capacity() > INBOX_KEPT {
            *inbox = BytesMut::new();
        }
    }
}

/// Microseconds since 1970; zero on a machine whose clock stands before that.
#[must_use]
pub fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_micros()).ok())
        .unwrap_or_default()
}

/// How long to let bytes gather after a read of `length` bytes that came `interval` after the one before.
fn gather_time(length: usize, interval: Duration) -> Option<Duration> {
    match length {
        WORTHWHILE_BYTES.. => None,
        LOAD_BYTES.. => Some(GATHER_TIME),
        _ => (interval < FLOW_INTERVAL).then_some(GATHER_TIME),
    }
}

/// Length of the first message in `inbox`, header included, if it is there whole.
fn take_message_length(inbox: &[u8]) -> Result<Option<usize>, SourceError> {
    let Some(header) = inbox.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=MESSAGE_LENGTH_MAX).contains(&length) {
        return Err(SourceError::Protocol(format!("a message of {length} bytes")));
    }
    Ok((inbox.len() > length).then_some(length + 1))
}

/// A name for use in SQL, in double quotes.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text for use in SQL, in single quotes; right whatever `standard_conforming_strings` says.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The same for a replication command, whose grammar has no `E''` form and takes a backslash as it is.
fn quote_replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_only_when_it_is_whole() {
        let message = [b'd', 0, 0, 0, 6, b'x', b'y'];
        for length in 0..message.len() {
            assert!(take_message_length(&message[..length]).unwrap().is_none(), "{length}");
        }
        assert_eq!(take_message_length(&message).unwrap(), Some(7));
        assert_eq!(take_message_length(&[&message[..], b"d"].concat()).unwrap(), Some(7));
    }

    #[test]
    fn a_message_of_impossible_length_is_refused() {
        assert!(take_message_length(&[b'd', 0, 0, 0, 3]).is_err());
        assert!(take_message_length(&[b'd', 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
    }

    #[test]
    fn bytes_gather_in_a_stream_that_flows_and_a_single_event_does_not_wait() {
        let apart = Duration::from_millis(5);
        assert_eq!(gather_time(700, apart), None);
        assert_eq!(gather_time(700, Duration::from_millis(1)), Some(GATHER_TIME));
        assert_eq!(gather_time(6_000, apart), Some(GATHER_TIME));
        assert_eq!(gather_time(20_000, apart), None);
        assert_eq!(gather_time(200_000, Duration::ZERO), None);
    }

    #[test]
    fn quoting_leaves_no_way_out() {
        assert_eq!(quote_identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal(r"a\'b"), r" E'a\\''b'");
    }
}
