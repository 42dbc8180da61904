//! The yardstick of the drain: reads the WAL from a slot as fast as the server sends it, counts and discards.
//!
//! Protocol: PostgreSQL's documentation, chapters "Message Formats", "Streaming Replication Protocol" and "Logical
//! Replication Message Formats". Nothing of the relay is used here: a mistake would be in both.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use postgres_protocol::authentication::sasl;
use postgres_protocol::message::frontend;

use super::process_figures::processor_time;
use crate::database::PostgresDatabase;

/// Bytes of room for one read.
const READ_SIZE: usize = 1 << 20;

/// A read that brought less comes too early: the walsender writes each message by itself and would have to wake us for
/// each, which costs it more than the message. Measured: twice the rate of a reader that does not wait.
const READ_LARGE: usize = 64 * 1024;

/// How long to let bytes gather before the next read; far below what the socket's buffer holds.
const GATHER_TIME: Duration = Duration::from_micros(500);

/// A server that is silent for longer is stuck: it sends a keepalive each 30 s at least.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalRead {
    /// Messages of pgoutput.
    pub(super) messages: u64,
    /// Bytes of these messages with the headers around them.
    pub(super) bytes: u64,
    /// Calls of `read` that it took.
    pub(super) reads: u64,
    /// From the connection to the first message.
    pub(super) first_after: Duration,
    /// From the connection to the last commit.
    pub(super) elapsed: Duration,
    pub(super) walsender_processor_time: Duration,
}

/// Streams pgoutput from `slot` until `transactions` with an insert have been committed. Acknowledges nothing. Blocks.
///
/// # Errors
/// When the server refuses, or has nothing more to send before that.
pub(super) fn read(
    database: &PostgresDatabase,
    slot: &str,
    publication: &str,
    transactions: u32,
) -> Result<WalRead> {
    let began = Instant::now();
    let mut connection = Connection::open(database)?;
    // What the relay asks for, too.
    let options =
        format!("proto_version '1', publication_names '\"{publication}\"', messages 'true'");
    connection.query(&format!("START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 ({options})"))?;
    connection.until(b'W').context("start the raw read")?;
    let mut count = Count::default();
    let mut first_after = None;
    while count.transactions < u64::from(transactions) {
        while let Some((kind, content)) = connection.message()? {
            match kind {
                b'd' => count.add(content)?,
                b'E' => bail!("PostgreSQL ended the raw read: {}", error_text(content)),
                _ => {}
            }
        }
        if count.messages > 0 {
            first_after.get_or_insert_with(|| began.elapsed());
        }
        if std::mem::take(&mut count.reply_requested) {
            connection.send_sign_of_life()?;
        }
        if count.transactions < u64::from(transactions) {
            let read = connection.fill().with_context(|| {
                format!("the raw read found {} of {transactions} transactions", count.transactions)
            })?;
            if read < READ_LARGE {
                std::thread::park_timeout(GATHER_TIME);
            }
        }
    }
    Ok(WalRead {
        messages: count.messages,
        bytes: count.bytes,
        reads: connection.reads,
        first_after: first_after.unwrap_or_default(),
        elapsed: began.elapsed(),
        walsender_processor_time: processor_time(connection.backend)?,
    })
}

#[derive(Default)]
struct Count {
    messages: u64,
    bytes: u64,
    transactions: u64,
    /// The transaction that is being read holds an insert.
    has_insert: bool,
    reply_requested: bool,
}

impl Count {
    /// Takes the content of one CopyData message.
    fn add(&mut self, content: &[u8]) -> Result<()> {
        // XLogData: `w`, three numbers of 8 bytes, a pgoutput message. Keepalive: `k`, two such numbers, `reply now`.
        match content {
            [b'w', rest @ ..] if rest.len() > 24 => {
                self.messages += 1;
                self.bytes += content.len() as u64;
                match rest[24] {
                    b'B' => self.has_insert = false,
                    b'I' => self.has_insert = true,
                    b'C' => self.transactions += u64::from(self.has_insert),
                    _ => {}
                }
                Ok(())
            }
            [b'k', rest @ ..] if rest.len() == 17 => {
                self.reply_requested |= rest[16] == 1;
                Ok(())
            }
            _ => bail!("PostgreSQL sent an unknown kind of replication message"),
        }
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What has arrived and was not taken yet is `buffer[taken..filled]`.
    taken: usize,
    filled: usize,
    reads: u64,
    /// Process id of the walsender.
    backend: u32,
}

impl Connection {
    fn open(database: &PostgresDatabase) -> Result<Self> {
        let stream = TcpStream::connect((database.host.as_str(), database.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let mut connection =
            Self { stream, buffer: vec![0; READ_SIZE], taken: 0, filled: 0, reads: 0, backend: 0 };
        let parameters = [
            ("user", database.user.as_str()),
            ("database", database.name.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", "raw read"),
            ("replication", "database"),
        ];
        connection.send(|out| frontend::startup_message(parameters, out))?;
        connection.authenticate(&database.password).context("log in for the raw read")?;
        let key = connection.until(b'K')?;
        connection.backend = number(&key)?;
        connection.until(b'Z')?;
        Ok(connection)
    }

    /// SCRAM-SHA-256, which testbed's servers ask for.
    fn authenticate(&mut self, password: &str) -> Result<()> {
        const SASL: u32 = 10;
        let asked = self.until(b'R')?;
        if number(&asked)? != SASL {
            bail!("the server does not ask for SCRAM");
        }
        let binding = sasl::ChannelBinding::unsupported();
        let mut scram = sasl::ScramSha256::new(password.as_bytes(), binding);
        self.send(|out| {
            frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), out)
        })?;
        let challenge = self.until(b'R')?;
        scram.update(challenge.get(4..).unwrap_or_default())?;
        self.send(|out| frontend::sasl_response(scram.message(), out))?;
        let outcome = self.until(b'R')?;
        scram.finish(outcome.get(4..).unwrap_or_default())?;
        Ok(())
    }

    fn query(&mut self, command: &str) -> Result<()> {
        self.send(|out| frontend::query(command, out))
    }

    /// Standby status update: nothing is written or flushed here, we only live.
    fn send_sign_of_life(&mut self) -> Result<()> {
        let mut update = vec![b'r'];
        update.resize(1 + 3 * 8 + 8 + 1, 0);
        self.send(|out| frontend::CopyData::new(update.as_slice()).map(|data| data.write(out)))
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        Ok(self.stream.write_all(&out)?)
    }

    /// The content of the next message of that kind; those before it are passed over.
    fn until(&mut self, wanted: u8) -> Result<Vec<u8>> {
        loop {
            match self.message()? {
                Some((kind, content)) if kind == wanted => return Ok(content.to_vec()),
                Some((b'E', content)) => bail!("PostgreSQL refuses: {}", error_text(content)),
                Some(_) => {}
                None => {
                    self.fill()?;
                }
            }
        }
    }

    /// Kind and content of the next message, if it is there whole.
    fn message(&mut self) -> Result<Option<(u8, &[u8])>> {
        let arrived = &self.buffer[self.taken..self.filled];
        let Some(header) = arrived.first_chunk::<5>() else { return Ok(None) };
        let length = number(&header[1..])? as usize;
        if length < 4 {
            bail!("PostgreSQL sent a message of {length} bytes");
        }
        let Some(content) = arrived.get(5..=length) else { return Ok(None) };
        self.taken += 1 + length;
        Ok(Some((header[0], content)))
    }

    /// Reads what has arrived, once, and returns how many bytes it was.
    fn fill(&mut self) -> Result<usize> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        self.reads += 1;
        let read = self.stream.read(&mut self.buffer[self.filled..])?;
        if read == 0 {
            bail!("PostgreSQL closed the connection");
        }
        self.filled += read;
        Ok(read)
    }
}

/// The big-endian number in the first four bytes.
fn number(bytes: &[u8]) -> Result<u32> {
    let bytes = bytes.first_chunk().context("PostgreSQL sent a message that is too short")?;
    Ok(u32::from_be_bytes(*bytes))
}

/// The fields of an error are texts that end with a zero, with a letter each in front.
fn error_text(content: &[u8]) -> String {
    let fields = content.split(|byte| *byte == 0);
    let message = fields.filter_map(|field| field.strip_prefix(b"M")).next();
    String::from_utf8_lossy(message.unwrap_or(b"no reason given")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal_data(message: u8) -> Vec<u8> {
        let mut content = vec![b'w'];
        content.resize(25, 0);
        content.push(message);
        content
    }

    #[test]
    fn transactions_count_when_they_hold_an_insert() {
        let mut count = Count::default();
        for message in b"BIDCBMCBRIC" {
            count.add(&wal_data(*message)).unwrap();
        }
        assert_eq!((count.transactions, count.messages), (2, 11));
    }

    #[test]
    fn a_keepalive_may_ask_for_a_reply() {
        let mut count = Count::default();
        let mut keepalive = vec![b'k'];
        keepalive.resize(18, 0);
        count.add(&keepalive).unwrap();
        assert!(!count.reply_requested);
        keepalive[17] = 1;
        count.add(&keepalive).unwrap();
        assert!(count.reply_requested);
    }

    #[test]
    fn other_messages_are_refused() {
        assert!(Count::default().add(b"x").is_err());
        assert!(Count::default().add(b"w").is_err());
        assert!(number(&[0, 0, 1]).is_err());
    }

    #[test]
    fn an_error_says_its_message() {
        assert_eq!(error_text(b"SERROR\0C42704\0Mno such slot\0\0"), "no such slot");
    }
}
