//! The shape of a table as the stream told it, kept beyond the message that told it.

use pgoutput::{Column, Relation, ReplicaIdentity};
use serde::{Deserialize, Serialize};

/// A table and its columns, in the order of its tuples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableShape {
    /// OID of the table.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<ColumnShape>,
}

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// OID of its type.
    #[serde(rename = "type")]
    pub type_id: u32,
    /// Its type modifier, -1 for none.
    pub modifier: i32,
    /// Whether it is part of the replica identity.
    pub key: bool,
}

impl TableShape {
    /// Keeps what a relation message tells.
    #[must_use]
    pub fn of(relation: &Relation<'_>) -> Self {
        let column = |column: &Column<'_>| ColumnShape {
            name: column.name.to_owned(),
            type_id: column.type_id,
            modifier: column.type_modifier,
            key: column.key,
        };
        Self {
            oid: relation.id,
            schema: relation.namespace.to_owned(),
            name: relation.name.to_owned(),
            columns: relation.columns.iter().map(column).collect(),
        }
    }

    /// The message again.
    #[must_use]
    pub fn relation(&self) -> Relation<'_> {
        Relation {
            id: self.oid,
            namespace: &self.schema,
            name: &self.name,
            // It says what the stream sends of an old row, and is asked by nobody.
            replica_identity: ReplicaIdentity::Default,
            columns: self.columns.iter().map(ColumnShape::column).collect(),
        }
    }
}

impl ColumnShape {
    fn column(&self) -> Column<'_> {
        Column {
            key: self.key,
            name: &self.name,
            type_id: self.type_id,
            type_modifier: self.modifier,
        }
    }
}
