//! One connection to PostgreSQL: start-up, authentication and simple queries; it may become a WAL stream.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use futures::TryFutureExt;
use postgres_protocol::message::{backend, frontend};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::{ServerError, SourceError};
use super::socket::{Socket, limit_window};
use super::tls::{self, Encryption};
use super::transport::Transport;
use crate::connector_config::DatabaseConfig;

/// How long a connection, its authentication or the answer to a catalog query may take. Far above what a healthy
/// server needs, and short enough that a silent network is noticed.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the server may take to end a session that said goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A peer that is silent on the network level for about this long is gone: a host that failed over sends no reset.
const PEER_SILENT_MAX: Duration = Duration::from_secs(30);

/// The longest message taken from the server: PostgreSQL's own limit for a field is 1 GiB.
pub(super) const MESSAGE_LENGTH_MAX: usize = (1 << 30) + (1 << 20);

/// Room for one read: large reads let the walsender fill its side, and cost fewer wake-ups on both.
const READ_SIZE: usize = 256 * 1024;

/// A row of a simple query: columns as text, `None` for null.
pub type Row = Vec<Option<String>>;

/// What the connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Catalog queries.
    Query,
    /// Replication commands, and SQL as well (`replication=database`).
    Replication,
    /// The same, to read tables: after the connector's initial statements.
    Snapshot,
}

/// An open, authenticated connection.
#[derive(Debug)]
pub struct Connection {
    stream: Transport,
    /// What ties a password exchange to the TLS session.
    pub(super) channel_binding: Option<Vec<u8>>,
    address: String,
    pub(super) inbox: BytesMut,
    outbox: BytesMut,
}

impl Connection {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// When the server cannot be reached in time or refuses.
    pub async fn open(database: &DatabaseConfig, purpose: Purpose) -> Result<Self, SourceError> {
        let address = database.dial_address();
        let opening = Self::open_at(address.clone(), database, purpose);
        tokio::time::timeout(ANSWER_TIMEOUT, opening)
            .await
            .unwrap_or(Err(SourceError::Timeout { address, waited: ANSWER_TIMEOUT }))
    }

    async fn open_at(
        address: String,
        database: &DatabaseConfig,
        purpose: Purpose,
    ) -> Result<Self, SourceError> {
        let (first, second) = tls::attempts(database.tls.mode);
        let opened = Box::pin(Self::open_with(first, &address, database, purpose)).await;
        match (opened, second) {
            (Err(refusal), Some(second)) if tls::is_worth_another(&refusal) => {
                let again = Box::pin(Self::open_with(second, &address, database, purpose)).await;
                again.map_err(|_| refusal)
            }
            (opened, _) => opened,
        }
    }

    async fn open_with(
        encryption: Encryption,
        address: &str,
        database: &DatabaseConfig,
        purpose: Purpose,
    ) -> Result<Self, SourceError> {
        let began = Instant::now();
        let socket = TcpStream::connect(address)
            .and_then(|stream| async {
                watch_peer(&stream)?;
                limit_window(&stream, began.elapsed())?;
                Ok(stream)
            })
            .await
            .map_err(|source| SourceError::Io {
                doing: "connect to",
                address: address.to_owned(),
                source,
            })?;
        let socket = Socket::new(socket);
        let (stream, channel_binding) = tls::encrypt(socket, address, database, encryption).await?;
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        let address = address.to_owned();
        let mut connection = Self { stream, channel_binding, address, inbox, outbox };
        connection.start_up(database, purpose).await?;
        connection.authenticate(database).await?;
        connection.until_ready("start a session").await?;
        if purpose != Purpose::Replication {
            // They may change how values are written, which must not reach the stream.
            for statement in &database.initial_statements {
                connection.query("run database.initial.statements", statement).await?;
            }
        }
        Ok(connection)
    }

    async fn start_up(
        &mut self,
        database: &DatabaseConfig,
        purpose: Purpose,
    ) -> Result<(), SourceError> {
        // The text forms of dates depend on these settings. The digits of floats and the forms of intervals and bytes
        // stay as the database has them, as with Debezium.
        let mut parameters = vec![
            ("user", database.user.as_str()),
            ("database", database.name.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", "outbox relay"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
        ];
        if purpose != Purpose::Query {
            parameters.push(("replication", "database"));
        }
        self.encode(|outbox| frontend::startup_message(parameters, outbox))?;
        self.flush().await
    }

    /// Runs SQL (or a replication command that answers with rows) and returns the rows of its last result.
    ///
    /// # Errors
    /// When the server refuses it (`doing` says what for) or the connection breaks.
    pub async fn query(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>, SourceError> {
        self.query_within(doing, sql, ANSWER_TIMEOUT).await
    }

    /// The same with a limit of its own. After a timeout the connection is of no use any more.
    pub(super) async fn query_within(
        &mut self,
        doing: &str,
        sql: &str,
        timeout: Duration,
    ) -> Result<Vec<Row>, SourceError> {
        let address = self.address.clone();
        let querying = async {
            self.encode(|outbox| frontend::query(sql, outbox))?;
            self.flush().await?;
            self.until_ready(doing).await
        };
        tokio::time::timeout(timeout, querying)
            .await
            .unwrap_or(Err(SourceError::Timeout { address, waited: timeout }))
    }

    /// Sends a command whose answer the caller reads, such as `START_REPLICATION`.
    pub(super) async fn send_command(&mut self, command: &str) -> Result<(), SourceError> {
        self.encode(|outbox| frontend::query(command, outbox))?;
        self.flush().await
    }

    /// Sends the content of a `CopyData` message.
    pub(super) async fn send_copy_data(&mut self, content: &[u8]) -> Result<(), SourceError> {
        self.encode(|outbox| {
            frontend::CopyData::new(content).map(|copy_data| copy_data.write(outbox))
        })?;
        self.flush().await
    }

    /// Says goodbye, so that the server frees the slot at once instead of finding a broken connection, and waits until
    /// it has heard: closing with unread bytes would reset the connection before the server has read our last word.
    pub(super) async fn close(mut self) {
        frontend::terminate(&mut self.outbox);
        // The server notices a broken connection as well: nothing depends on this arriving.
        let goodbye = async {
            self.flush().await?;
            loop {
                self.inbox.clear();
                self.fill().await?;
            }
        };
        let _: Result<Result<(), SourceError>, _> =
            tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Reads what has arrived into the inbox: once, at least one byte. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<(), SourceError> {
        self.inbox.reserve(READ_SIZE);
        match self.stream.read_buf(&mut self.inbox).await {
            Ok(0) => Err(SourceError::Closed { address: self.address.clone() }),
            Ok(_) => Ok(()),
            Err(source) => Err(tls::broken("read from", &self.address, source)),
        }
    }

    /// Lets bytes arrive without a wake-up until the next [`fill`](Self::fill).
    pub(super) fn rest(&mut self) -> Result<(), SourceError> {
        self.stream.rest().map_err(|source| {
            let address = self.address.clone();
            SourceError::Io { doing: "read from", address, source }
        })
    }

    /// Reads rows until the server is ready for the next query.
    async fn until_ready(&mut self, doing: &str) -> Result<Vec<Row>, SourceError> {
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            match self.message().await? {
                backend::Message::RowDescription(_) => rows.clear(),
                backend::Message::DataRow(body) => rows.push(text_row(&body)?),
                backend::Message::ErrorResponse(body) => error = Some(refused(doing, &body)),
                backend::Message::ReadyForQuery(_) => {
                    return error.map_or(Ok(rows), Err);
                }
                // Notices, parameters, the cancel key, command tags: nothing to do.
                _ => {}
            }
            // A fatal error (wrong password, shutdown) is followed by the end of the connection.
            if let Some(SourceError::Server { error: server, .. }) = &error
                && server.is_fatal
            {
                return error.map_or(Ok(rows), Err);
            }
        }
    }

    pub(super) async fn message(&mut self) -> Result<backend::Message, SourceError> {
        loop {
            if let Some(header) = self.inbox.first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                if length as usize > MESSAGE_LENGTH_MAX {
                    return Err(SourceError::Protocol(format!("a message of {length} bytes")));
                }
            }
            let parsed = backend::Message::parse(&mut self.inbox)
                .map_err(|error| SourceError::Protocol(error.to_string()))?;
            match parsed {
                Some(message) => return Ok(message),
                None => self.fill().await?,
            }
        }
    }

    pub(super) fn encode(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), SourceError> {
        write(&mut self.outbox).map_err(|error| SourceError::Protocol(error.to_string()))
    }

    pub(super) async fn flush(&mut self) -> Result<(), SourceError> {
        let written = self.stream.write_all_buf(&mut self.outbox).await;
        self.outbox.advance(self.outbox.len());
        // TLS may hold back the end of what was written.
        let written = match written {
            Ok(()) => self.stream.flush().await,
            error => error,
        };
        written.map_err(|source| tls::broken("write to", &self.address, source))
    }
}

/// Small writes leave at once, and a peer that is gone is noticed although nothing is sent to it.
fn watch_peer(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let probe = PEER_SILENT_MAX / 6;
    let keepalive = TcpKeepalive::new().with_time(PEER_SILENT_MAX / 2).with_interval(probe);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(3))
}

/// The server's refusal as an error; `doing` says of what.
pub(super) fn refused(doing: &str, body: &backend::ErrorResponseBody) -> SourceError {
    let mut error = ServerError::default();
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // The severity that is not translated (PostgreSQL 9.6 and later).
            b'V' => error.is_fatal = text != "ERROR",
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            _ => {}
        }
    }
    SourceError::Server { doing: doing.to_owned(), error: Box::new(error) }
}

fn text_row(body: &backend::DataRowBody) -> Result<Row, SourceError> {
    let text = |range: Option<std::ops::Range<usize>>| {
        range
            .map(|range| {
                let bytes = body.buffer().get(range).unwrap_or_default();
                String::from_utf8(bytes.to_vec())
                    .map_err(|_| SourceError::Protocol("a column that is not UTF-8".to_owned()))
            })
            .transpose()
    };
    let protocol = |error: std::io::Error| SourceError::Protocol(error.to_string());
    let mut row = Row::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next().map_err(protocol)? {
        row.push(text(range)?);
    }
    Ok(row)
}
