//! Decodes the messages of PostgreSQL's logical replication protocol (pgoutput); pure, borrows from the buffer.
//!
//! Source of the formats: PostgreSQL's documentation, "Logical Replication Message Formats" and "Streaming
//! Replication Protocol". Protocol version 1 plus logical decoding messages: each transaction arrives whole, at
//! its commit, between [`Message::Begin`] and [`Message::Commit`].
//!
//! [`decode`] takes the payload of one `XLogData` frame; [`frame::decode`] takes that frame itself. No input can
//! make them panic or allocate more than a small multiple of its own length.

pub mod frame;
mod lsn;
mod message;
mod reader;
mod tuple;

pub use lsn::{Lsn, ParseLsnError};
pub use message::{
    Begin, Column, Commit, Delete, Insert, LogicalMessage, Message, OldTuple, Origin, Relation,
    ReplicaIdentity, Truncate, TypeName, Update, decode,
};
pub use reader::DecodeError;
pub use tuple::{Tuple, TupleColumn};
