//! The frames inside `CopyData`: WAL data and keepalives from the server, status updates from us.

use crate::reader::{DecodeError, Reader};
use crate::{Lsn, message};

/// What the server sends on a replication connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `XLogData`: one pgoutput message.
    WalData(WalData<'a>),
    /// `Primary keepalive message`.
    Keepalive(Keepalive),
}

/// One pgoutput message and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalData<'a> {
    /// Position of the message; zero for messages that have none, such as a relation.
    pub start_lsn: Lsn,
    /// The server's end of WAL when it sent this.
    pub wal_end: Lsn,
    /// The server's clock, microseconds since 2000-01-01 UTC.
    pub server_time_us: i64,
    /// The pgoutput message, for [`crate::decode`].
    pub payload: &'a [u8],
}

/// The server is alive, and tells how far it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Everything the slot has below this position has been sent.
    pub wal_end: Lsn,
    /// The server's clock, microseconds since 2000-01-01 UTC.
    pub server_time_us: i64,
    /// The server will end the connection unless it gets a status update soon.
    pub reply_requested: bool,
}

/// Decodes the content of one `CopyData` message.
///
/// # Errors
/// When the bytes are neither WAL data nor a keepalive.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("kind of frame")? {
        b'w' => Ok(Frame::WalData(WalData {
            start_lsn: message::lsn(&mut reader, "start of WAL data")?,
            wal_end: message::lsn(&mut reader, "end of WAL")?,
            server_time_us: reader.i64("server's clock")?,
            payload: reader.rest(),
        })),
        b'k' => {
            let keepalive = Keepalive {
                wal_end: message::lsn(&mut reader, "end of WAL")?,
                server_time_us: reader.i64("server's clock")?,
                reply_requested: reader.u8("reply requested")? != 0,
            };
            reader.end("keepalive")?;
            Ok(Frame::Keepalive(keepalive))
        }
        tag => Err(DecodeError::UnknownTag { field: "kind of frame", tag }),
    }
}

/// A `Standby status update`: the acknowledgement that lets PostgreSQL forget WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Received from the server.
    pub received_lsn: Lsn,
    /// Confirmed by the sink: moves the slot's `confirmed_flush_lsn`.
    pub flushed_lsn: Lsn,
    /// Our clock, microseconds since 2000-01-01 UTC.
    pub client_time_us: i64,
    /// Ask for a keepalive at once.
    pub reply_requested: bool,
}

impl StatusUpdate {
    /// Length of an encoded status update in bytes.
    pub const LENGTH: usize = 34;

    /// The bytes of the update, as the content of a `CopyData` message.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = b'r';
        bytes[1..9].copy_from_slice(&self.received_lsn.as_u64().to_be_bytes());
        bytes[9..17].copy_from_slice(&self.flushed_lsn.as_u64().to_be_bytes());
        // The position applied: a relay applies nothing beyond what the sink confirmed.
        bytes[17..25].copy_from_slice(&self.flushed_lsn.as_u64().to_be_bytes());
        bytes[25..33].copy_from_slice(&self.client_time_us.to_be_bytes());
        bytes[33] = u8::from(self.reply_requested);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_data_and_keepalives_are_told_apart() {
        let wal = [&b"w"[..], &7u64.to_be_bytes(), &9u64.to_be_bytes(), &5i64.to_be_bytes(), b"B"]
            .concat();
        let Ok(Frame::WalData(data)) = decode(&wal) else { panic!("no WAL data") };
        assert_eq!((data.start_lsn, data.wal_end), (Lsn::new(7), Lsn::new(9)));
        assert_eq!((data.server_time_us, data.payload), (5, &b"B"[..]));

        let alive = [&b"k"[..], &9u64.to_be_bytes(), &5i64.to_be_bytes(), &[1]].concat();
        let expected = Keepalive { wal_end: Lsn::new(9), server_time_us: 5, reply_requested: true };
        assert_eq!(decode(&alive), Ok(Frame::Keepalive(expected)));
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_refused() {
        let alive = [&b"k"[..], &9u64.to_be_bytes(), &5i64.to_be_bytes(), &[1]].concat();
        for length in 0..alive.len() {
            assert!(decode(&alive[..length]).is_err(), "{length} bytes");
        }
        assert!(decode(b"x").is_err());
    }

    #[test]
    fn a_status_update_has_the_documented_layout() {
        let update = StatusUpdate {
            received_lsn: Lsn::new(3),
            flushed_lsn: Lsn::new(2),
            client_time_us: 1,
            reply_requested: true,
        };
        let expected = [
            &b"r"[..],
            &3u64.to_be_bytes(),
            &2u64.to_be_bytes(),
            &2u64.to_be_bytes(),
            &1i64.to_be_bytes(),
            &[1],
        ]
        .concat();
        assert_eq!(update.encode().to_vec(), expected);
    }
}
