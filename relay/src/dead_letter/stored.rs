//! A dead letter as it is stored: one JSON document that holds the change itself, so that it can be routed again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_router::change::Operation;
use pgoutput::{LogicalMessage, Lsn, TupleColumn};
use serde::{Deserialize, Serialize};

use crate::provenance::{Origin, Provenance};
use crate::source::table_shape::TableShape;

/// The form of the document; a reader of another form must not guess.
pub const FORM: u32 = 1;

/// Operations by Debezium's letters.
const OPERATIONS: [(&str, Operation); 5] = [
    ("r", Operation::Read),
    ("c", Operation::Create),
    ("u", Operation::Update),
    ("d", Operation::Delete),
    ("t", Operation::Truncate),
];

/// Why a change is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It cannot become a record.
    Failed,
    /// Kafka refused its record.
    Refused,
    /// An earlier event of its key is a dead letter.
    Parked,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredLetter {
    /// [`FORM`].
    pub dead_letter: u32,
    /// The connector: several may share a topic.
    pub connector: String,
    /// Why it is one.
    pub kind: Kind,
    /// How often it was tried, counted from 1.
    pub attempt: u32,
    /// Where it failed, in Connect's words.
    pub stage: String,
    /// What is wrong.
    pub reason: String,
    /// The topic that the event was for, where that is known. Its key is the key of the record.
    pub topic: Option<String>,
    /// The change.
    #[serde(flatten)]
    pub subject: Subject,
    /// Where the change stands in the stream.
    pub position: StoredPosition,
}

/// What could not be published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A change of a row.
    Change(StoredChange),
    /// A logical decoding message.
    Message(StoredMessage),
}

/// A change of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredChange {
    /// Debezium's letter: r, c, u, d or t.
    pub operation: String,
    /// The table.
    pub table: TableShape,
    /// What the stream told of the row before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<StoredRow>,
    /// The row after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<StoredRow>,
}

/// A logical decoding message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its prefix.
    pub prefix: String,
    /// Its content, base64.
    pub content: String,
    /// Whether it was part of a transaction.
    pub transactional: bool,
}

/// Values by column, null where the row has null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredRow(BTreeMap<String, Option<StoredValue>>);

/// A value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredValue {
    /// PostgreSQL's text form.
    Text(String),
    /// Stored out of line and not changed: PostgreSQL did not send it.
    Unchanged { unchanged: bool },
    /// Bytes that are no text.
    Bytes { base64: String },
}

/// Position, time and transaction; positions as PostgreSQL writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// Position of the change.
    pub lsn: String,
    /// Position of its transaction's commit record.
    pub commit_lsn: String,
    /// Position of the commit before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit_lsn: Option<String>,
    /// Time of the commit, microseconds since 1970.
    pub commit_ts_us: i64,
    /// Transaction id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
    /// The replication origin and the commit's position there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<(String, String)>,
}

impl StoredLetter {
    /// Reads the document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let letter: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        match letter.dead_letter {
            FORM => Ok(letter),
            other => Err(format!("its form is {other}, and {FORM} is known here")),
        }
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Nothing in it can fail to be written: keys are text, numbers are whole.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl StoredChange {
    /// The operation that its letter names.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        OPERATIONS.iter().find(|(letter, _)| *letter == self.operation).map(|(_, found)| *found)
    }

    /// Debezium's letter for an operation.
    #[must_use]
    pub fn letter(operation: Operation) -> &'static str {
        OPERATIONS.iter().find(|(_, known)| *known == operation).map_or("c", |(letter, _)| letter)
    }
}

impl StoredRow {
    /// Keeps a row; more values than columns are left out.
    #[must_use]
    pub fn of(shape: &TableShape, tuple: &[TupleColumn<'_>]) -> Self {
        let value = |value: &TupleColumn<'_>| match value {
            TupleColumn::Null => None,
            TupleColumn::UnchangedToast => Some(StoredValue::Unchanged { unchanged: true }),
            TupleColumn::Text(bytes) | TupleColumn::Binary(bytes) => {
                Some(match std::str::from_utf8(bytes) {
                    Ok(text) => StoredValue::Text(text.to_owned()),
                    Err(_) => StoredValue::Bytes { base64: STANDARD.encode(bytes) },
                })
            }
        };
        let columns = shape.columns.iter().map(|column| column.name.clone());
        Self(columns.zip(tuple.iter().map(value)).collect())
    }

    /// The values in the order of the shape; a column that the row does not have is null.
    #[must_use]
    pub fn values(&self, shape: &TableShape) -> Vec<RowValue<'_>> {
        let value = |name: &str| match self.0.get(name).and_then(Option::as_ref) {
            None => RowValue::Null,
            Some(StoredValue::Text(text)) => RowValue::Text(Cow::Borrowed(text.as_bytes())),
            Some(StoredValue::Unchanged { .. }) => RowValue::Unchanged,
            Some(StoredValue::Bytes { base64 }) => {
                RowValue::Text(Cow::Owned(STANDARD.decode(base64).unwrap_or_default()))
            }
        };
        shape.columns.iter().map(|column| value(&column.name)).collect()
    }
}

/// A value of a stored row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowValue<'r> {
    /// The SQL null.
    Null,
    /// Not sent.
    Unchanged,
    /// PostgreSQL's text form.
    Text(Cow<'r, [u8]>),
}

impl RowValue<'_> {
    /// As the stream has it.
    #[must_use]
    pub fn column(&self) -> TupleColumn<'_> {
        match self {
            Self::Null => TupleColumn::Null,
            Self::Unchanged => TupleColumn::UnchangedToast,
            Self::Text(bytes) => TupleColumn::Text(bytes),
        }
    }
}

impl StoredMessage {
    /// Keeps a message.
    #[must_use]
    pub fn of(message: &LogicalMessage<'_>) -> Self {
        Self {
            prefix: message.prefix.to_owned(),
            content: STANDARD.encode(message.content),
            transactional: message.transactional,
        }
    }

    /// The content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        STANDARD.decode(&self.content).unwrap_or_default()
    }
}

impl StoredPosition {
    /// Keeps where a change comes from.
    #[must_use]
    pub fn of(provenance: &Provenance) -> Self {
        let origin = provenance.origin.as_ref();
        Self {
            lsn: provenance.lsn.to_string(),
            commit_lsn: provenance.commit_lsn.to_string(),
            last_commit_lsn: provenance.last_commit_lsn.as_ref().map(Lsn::to_string),
            commit_ts_us: provenance.commit_ts_us,
            xid: provenance.xid,
            origin: origin.map(|origin| (origin.name.clone(), origin.commit_lsn.to_string())),
        }
    }

    /// Where the change came from; a position that cannot be read is none.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        let lsn = |text: &String| text.parse().unwrap_or(Lsn::ZERO);
        let origin = |(name, commit_lsn): &(String, String)| {
            Arc::new(Origin { name: name.clone(), commit_lsn: lsn(commit_lsn) })
        };
        Provenance {
            lsn: lsn(&self.lsn),
            last_commit_lsn: self.last_commit_lsn.as_ref().map(lsn),
            commit_lsn: lsn(&self.commit_lsn),
            commit_ts_us: self.commit_ts_us,
            xid: self.xid,
            origin: self.origin.as_ref().map(origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::table_shape::ColumnShape;

    fn shape() -> TableShape {
        let column = |name: &str| ColumnShape {
            name: name.to_owned(),
            type_id: 25,
            modifier: -1,
            key: false,
        };
        TableShape {
            oid: 7,
            schema: "inventory".to_owned(),
            name: "outboxevent".to_owned(),
            columns: ["a", "b", "c", "d"].map(column).into(),
        }
    }

    fn letter() -> StoredLetter {
        let tuple = [
            TupleColumn::Text(b"x"),
            TupleColumn::Null,
            TupleColumn::UnchangedToast,
            TupleColumn::Text(&[0xFF]),
        ];
        let provenance = Provenance {
            lsn: Lsn::new(1 << 32),
            commit_lsn: Lsn::new(24),
            commit_ts_us: 5,
            xid: Some(9),
            ..Provenance::default()
        };
        StoredLetter {
            dead_letter: FORM,
            connector: "c".to_owned(),
            kind: Kind::Failed,
            attempt: 1,
            stage: "TRANSFORMATION".to_owned(),
            reason: "column is null".to_owned(),
            topic: None,
            subject: Subject::Change(StoredChange {
                operation: StoredChange::letter(Operation::Create).to_owned(),
                table: shape(),
                before: None,
                after: Some(StoredRow::of(&shape(), &tuple)),
            }),
            position: StoredPosition::of(&provenance),
        }
    }

    #[test]
    fn a_letter_gives_back_the_change_that_it_keeps() {
        let stored = StoredLetter::from_json(&letter().to_json()).unwrap();
        assert_eq!(stored, letter());
        let Subject::Change(change) = &stored.subject else { panic!("no change") };
        assert_eq!(change.operation(), Some(Operation::Create));
        let values = change.after.as_ref().unwrap().values(&change.table);
        let columns: Vec<TupleColumn<'_>> = values.iter().map(RowValue::column).collect();
        assert_eq!(
            columns,
            [
                TupleColumn::Text(b"x"),
                TupleColumn::Null,
                TupleColumn::UnchangedToast,
                TupleColumn::Text(&[0xFF]),
            ]
        );
        assert_eq!(stored.position.provenance().lsn, Lsn::new(1 << 32));
    }

    #[test]
    fn a_letter_is_one_document_that_a_person_can_read() {
        let text = String::from_utf8(letter().to_json()).unwrap();
        let expected = concat!(
            r#"{"dead_letter":1,"connector":"c","kind":"failed","attempt":1,"stage":"TRANSFORMATION","#,
            r#""reason":"column is null","topic":null,"change":{"operation":"c","#,
            r#""table":{"oid":7,"schema":"inventory","name":"outboxevent","columns":["#,
        );
        assert!(text.starts_with(expected), "{text}");
        let row = r#""after":{"a":"x","b":null,"c":{"unchanged":true},"d":{"base64":"/w=="}}}"#;
        assert!(text.contains(row), "{text}");
        let position = r#""position":{"lsn":"1/0","commit_lsn":"0/18","commit_ts_us":5,"xid":9}}"#;
        assert!(text.ends_with(position), "{text}");
    }

    #[test]
    fn what_is_no_letter_is_told_and_never_guessed() {
        for text in ["", "{}", "[1]", r#"{"dead_letter":1}"#] {
            assert!(StoredLetter::from_json(text.as_bytes()).is_err(), "{text}");
        }
        let newer = StoredLetter { dead_letter: 2, ..letter() };
        assert!(StoredLetter::from_json(&newer.to_json()).unwrap_err().contains("form is 2"));
    }
}
