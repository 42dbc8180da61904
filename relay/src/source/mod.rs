//! Where changes come from: PostgreSQL's WAL through a replication slot and a publication.

mod authentication;
mod channel_binding;
pub mod connection;
mod error;
pub mod history;
pub(crate) mod lease;
pub mod publication;
pub mod relations;
pub mod server;
mod silence;
pub mod slot;
pub mod snapshot;
mod socket;
pub mod start;
pub mod table_filter;
pub mod table_shape;
mod tls;
mod transport;
pub mod wal;

pub use error::{ServerError, SourceError};
