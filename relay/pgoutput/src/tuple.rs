//! One row as pgoutput sends it: columns in the order of the relation.

use crate::reader::{DecodeError, Reader};

/// One column of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TupleColumn<'a> {
    /// The SQL null.
    Null,
    /// A value stored out of line that the statement did not change: PostgreSQL does not send it.
    UnchangedToast,
    /// The value in PostgreSQL's text form, in the client encoding.
    Text(&'a [u8]),
    /// The value in PostgreSQL's binary form (only with the option `binary`).
    Binary(&'a [u8]),
}

/// A row, checked when it was decoded, read column by column without copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    column_count: u16,
    columns: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of columns.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.column_count as usize
    }

    /// Whether the row has no column (a table may have none).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.column_count == 0
    }

    /// The columns in order.
    pub fn columns(&self) -> impl Iterator<Item = TupleColumn<'a>> + use<'a> {
        let mut reader = Reader::new(self.columns);
        // `read` has walked over the same bytes with the same function, so none of these fails.
        (0..self.column_count).map_while(move |_| read_column(&mut reader).ok())
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let column_count = reader.u16("number of columns")?;
        let start = reader.rest();
        for _ in 0..column_count {
            read_column(reader)?;
        }
        let length = start.len() - reader.rest().len();
        Ok(Self { column_count, columns: start.get(..length).unwrap_or_default() })
    }
}

fn read_column<'a>(reader: &mut Reader<'a>) -> Result<TupleColumn<'a>, DecodeError> {
    match reader.u8("kind of column")? {
        b'n' => Ok(TupleColumn::Null),
        b'u' => Ok(TupleColumn::UnchangedToast),
        b't' => value(reader).map(TupleColumn::Text),
        b'b' => value(reader).map(TupleColumn::Binary),
        tag => Err(DecodeError::UnknownTag { field: "kind of column", tag }),
    }
}

fn value<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = reader.length("length of column")?;
    reader.bytes(length, "column")
}
