//! The messages of pgoutput, protocol version 1.

use crate::Lsn;
use crate::reader::{DecodeError, Reader};
use crate::tuple::Tuple;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; its changes follow, then its commit.
    Begin(Begin),
    /// The transaction that began is complete.
    Commit(Commit),
    /// The transaction came from another server (replication origins).
    Origin(Origin<'a>),
    /// Columns of a table; sent before its first change and after each change of its shape.
    Relation(Relation<'a>),
    /// Name of a type that is not built in.
    Type(TypeName<'a>),
    /// A row was inserted.
    Insert(Insert<'a>),
    /// A row was updated.
    Update(Update<'a>),
    /// A row was deleted.
    Delete(Delete<'a>),
    /// Tables were truncated.
    Truncate(Truncate),
    /// Written by `pg_logical_emit_message`.
    LogicalMessage(LogicalMessage<'a>),
}

/// A transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Position of the transaction's commit record.
    pub commit_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
    /// Transaction id.
    pub xid: u32,
}

/// A transaction is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Position of the commit record.
    pub commit_lsn: Lsn,
    /// End of the commit record: acknowledging it means "this transaction is done".
    pub end_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
}

/// Where a transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Position of the commit on the origin server.
    pub commit_lsn: Lsn,
    /// Name of the origin.
    pub name: &'a str,
}

/// Which columns of the old row a table sends with updates and deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of an index.
    Index,
}

/// A table and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The table's OID; changes name it by this number.
    pub id: u32,
    /// Schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Table name.
    pub name: &'a str,
    /// What updates and deletes send of the old row.
    pub replica_identity: ReplicaIdentity,
    /// Columns in the order of the tuples.
    pub columns: Vec<Column<'a>>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether the column is part of the replica identity.
    pub key: bool,
    /// Column name.
    pub name: &'a str,
    /// OID of the type.
    pub type_id: u32,
    /// Type modifier (`atttypmod`), -1 for none.
    pub type_modifier: i32,
}

/// A type that is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeName<'a> {
    /// OID of the type.
    pub id: u32,
    /// Schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Type name.
    pub name: &'a str,
}

/// An inserted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The table's OID.
    pub relation_id: u32,
    /// The new row.
    pub new: Tuple<'a>,
}

/// What is known of a row before its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

/// An updated row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update<'a> {
    /// The table's OID.
    pub relation_id: u32,
    /// The row before; absent where its identity did not change and is not FULL.
    pub old: Option<OldTuple<'a>>,
    /// The row after.
    pub new: Tuple<'a>,
}

/// A deleted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The table's OID.
    pub relation_id: u32,
    /// The row before.
    pub old: OldTuple<'a>,
}

/// Truncated tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate {
    /// OIDs of the tables.
    pub relation_ids: Vec<u32>,
    /// `TRUNCATE … CASCADE`.
    pub cascade: bool,
    /// `TRUNCATE … RESTART IDENTITY`.
    pub restart_identity: bool,
}

/// A message of `pg_logical_emit_message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the transaction around it; otherwise it arrives at once, outside of any.
    pub transactional: bool,
    /// Position of the message.
    pub message_lsn: Lsn,
    /// First argument after the flag.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

/// Decodes one pgoutput message.
///
/// # Errors
/// When the bytes are cut short, too long, or hold a tag that protocol version 1 does not have.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8("kind of message")?;
    let reader = &mut reader;
    let message = match tag {
        b'B' => Message::Begin(Begin {
            commit_lsn: lsn(reader, "LSN of the commit")?,
            commit_time_us: reader.i64("time of the commit")?,
            xid: reader.u32("transaction id")?,
        }),
        b'C' => Message::Commit(commit(reader)?),
        b'O' => Message::Origin(Origin {
            commit_lsn: lsn(reader, "LSN at the origin")?,
            name: reader.text("name of the origin")?,
        }),
        b'R' => Message::Relation(relation(reader)?),
        b'Y' => Message::Type(TypeName {
            id: reader.u32("OID of the type")?,
            namespace: reader.text("schema of the type")?,
            name: reader.text("name of the type")?,
        }),
        b'I' => Message::Insert(insert(reader)?),
        b'U' => Message::Update(update(reader)?),
        b'D' => Message::Delete(delete(reader)?),
        b'T' => Message::Truncate(truncate(reader)?),
        b'M' => Message::LogicalMessage(logical_message(reader)?),
        tag => return Err(DecodeError::UnknownTag { field: "kind of message", tag }),
    };
    reader.end(name_of(&message))?;
    Ok(message)
}

pub(crate) fn lsn(reader: &mut Reader<'_>, field: &'static str) -> Result<Lsn, DecodeError> {
    reader.u64(field).map(Lsn::new)
}

const fn name_of(message: &Message<'_>) -> &'static str {
    match message {
        Message::Begin(_) => "begin",
        Message::Commit(_) => "commit",
        Message::Origin(_) => "origin",
        Message::Relation(_) => "relation",
        Message::Type(_) => "type",
        Message::Insert(_) => "insert",
        Message::Update(_) => "update",
        Message::Delete(_) => "delete",
        Message::Truncate(_) => "truncate",
        Message::LogicalMessage(_) => "logical decoding",
    }
}

fn commit(reader: &mut Reader<'_>) -> Result<Commit, DecodeError> {
    // Flags: none is defined yet.
    reader.u8("flags of the commit")?;
    Ok(Commit {
        commit_lsn: lsn(reader, "LSN of the commit")?,
        end_lsn: lsn(reader, "end LSN of the transaction")?,
        commit_time_us: reader.i64("time of the commit")?,
    })
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Relation<'a>, DecodeError> {
    let id = reader.u32("OID of the table")?;
    let namespace = reader.text("schema of the table")?;
    let name = reader.text("name of the table")?;
    let replica_identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        tag => return Err(DecodeError::UnknownTag { field: "replica identity", tag }),
    };
    let count = reader.u16("number of columns")?;
    // Not reserved ahead: the count is the server's word, the bytes behind it are the limit.
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(Column {
            key: reader.u8("flags of the column")? & 1 == 1,
            name: reader.text("name of the column")?,
            type_id: reader.u32("type of the column")?,
            type_modifier: reader.i32("type modifier of the column")?,
        });
    }
    Ok(Relation { id, namespace, name, replica_identity, columns })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Insert<'a>, DecodeError> {
    let relation_id = reader.u32("OID of the table")?;
    match reader.u8("kind of tuple")? {
        b'N' => Ok(Insert { relation_id, new: Tuple::read(reader)? }),
        tag => Err(DecodeError::UnknownTag { field: "kind of tuple", tag }),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Update<'a>, DecodeError> {
    let relation_id = reader.u32("OID of the table")?;
    let mut tag = reader.u8("kind of tuple")?;
    let old = match tag {
        b'K' => Some(OldTuple::Key(Tuple::read(reader)?)),
        b'O' => Some(OldTuple::Full(Tuple::read(reader)?)),
        _ => None,
    };
    if old.is_some() {
        tag = reader.u8("kind of tuple")?;
    }
    match tag {
        b'N' => Ok(Update { relation_id, old, new: Tuple::read(reader)? }),
        tag => Err(DecodeError::UnknownTag { field: "kind of tuple", tag }),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Delete<'a>, DecodeError> {
    let relation_id = reader.u32("OID of the table")?;
    let old = match reader.u8("kind of tuple")? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Full(Tuple::read(reader)?),
        tag => return Err(DecodeError::UnknownTag { field: "kind of tuple", tag }),
    };
    Ok(Delete { relation_id, old })
}

fn truncate(reader: &mut Reader<'_>) -> Result<Truncate, DecodeError> {
    let count = reader.length("number of tables")?;
    let flags = reader.u8("flags of the truncate")?;
    let mut relation_ids = Vec::new();
    for _ in 0..count {
        relation_ids.push(reader.u32("OID of the table")?);
    }
    Ok(Truncate { relation_ids, cascade: flags & 1 != 0, restart_identity: flags & 2 != 0 })
}

fn logical_message<'a>(reader: &mut Reader<'a>) -> Result<LogicalMessage<'a>, DecodeError> {
    let transactional = reader.u8("flags of the message")? & 1 == 1;
    let message_lsn = lsn(reader, "LSN of the message")?;
    let prefix = reader.text("prefix of the message")?;
    let length = reader.length("length of the message")?;
    let content = reader.bytes(length, "content of the message")?;
    Ok(LogicalMessage { transactional, message_lsn, prefix, content })
}

#[cfg(test)]
mod tests;
