//! The tables of a stream: what pgoutput told of their shape, and which of them are captured.

use std::collections::HashMap;
use std::sync::Arc;

use event_router::change::Table;
use event_router::data::Schema;
use pgoutput::{Relation, Tuple, TupleColumn};

use super::connection::{Connection, Purpose};
use super::error::SourceError;
use super::table_shape::TableShape;
use crate::columns::{COLUMN_QUERY, Catalog, TYPE_QUERY, TableColumns, TupleRow, TypeRegistry};
use crate::connector_config::ConnectorConfig;

/// OIDs from here on are given to types that are not built in (PostgreSQL's `FirstNormalObjectId`).
const FIRST_CUSTOM_OID: u32 = 16_384;

/// Relations by OID, in their latest version.
#[derive(Debug, Default)]
pub struct Relations {
    /// `None`: known, but not captured.
    tables: HashMap<u32, Option<Arc<CapturedTable>>>,
    types: TypeRegistry,
}

/// A table whose changes are routed.
#[derive(Debug)]
pub struct CapturedTable {
    /// The table as the router sees it.
    pub table: Arc<Table>,
    /// Schema and name, for messages.
    pub full_name: String,
    /// Topic of its changes where no router takes them.
    pub topic: String,
    /// Schema of their key; none where the table has no key.
    pub key_schema: Option<Arc<Schema>>,
    /// How its columns are read.
    pub columns: TableColumns,
    /// Its shape as the stream told it.
    pub shape: TableShape,
}

impl Relations {
    /// Takes note of a relation that the stream announces; it replaces what was known of the same table. What
    /// pgoutput does not tell of a captured table is read from the catalogue, on a connection of its own.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub async fn learn(
        &mut self,
        relation: &Relation<'_>,
        config: &ConnectorConfig,
    ) -> Result<(), SourceError> {
        if !config.table_filter.captures(namespace(relation), relation.name) {
            self.tables.insert(relation.id, None);
            return Ok(());
        }
        let mut connection = Connection::open(&config.database, Purpose::Query).await?;
        self.learn_with(relation, config, &mut connection).await?;
        connection.close().await;
        Ok(())
    }

    /// The same for a table that is captured, over a connection that is there already.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub async fn learn_with(
        &mut self,
        relation: &Relation<'_>,
        config: &ConnectorConfig,
        connection: &mut Connection,
    ) -> Result<(), SourceError> {
        let is_unknown = |type_id: u32| type_id >= FIRST_CUSTOM_OID && !self.types.knows(type_id);
        if relation.columns.iter().any(|column| is_unknown(column.type_id)) {
            for row in connection.query("look at the types", TYPE_QUERY).await? {
                self.types.learn(&row);
            }
        }
        let mut catalog = Catalog::default();
        let sql = COLUMN_QUERY.replace("{}", &relation.id.to_string());
        for row in connection.query("look at the columns", &sql).await? {
            catalog.learn(&row);
        }
        let columns =
            TableColumns::with_catalog(relation, &catalog, &self.types, &config.value_modes);
        let table = columns.table(&config.topic_prefix, namespace(relation), relation.name);
        let topic = columns.topic(&config.topic_prefix, namespace(relation), relation.name);
        let key_schema = columns.key_schema(&topic);
        let full_name = format!("{}.{}", namespace(relation), relation.name);
        let (table, shape) = (Arc::new(table), TableShape::of(relation));
        let captured = CapturedTable { table, full_name, topic, key_schema, columns, shape };
        self.tables.insert(relation.id, Some(Arc::new(captured)));
        Ok(())
    }

    /// The table of a change, if it is captured.
    #[must_use]
    pub fn captured(&self, relation_id: u32) -> Option<Arc<CapturedTable>> {
        self.tables.get(&relation_id).cloned().flatten()
    }
}

/// pgoutput leaves the name of the schema pg_catalog empty.
const fn namespace<'a>(relation: &Relation<'a>) -> &'a str {
    if relation.namespace.is_empty() { "pg_catalog" } else { relation.namespace }
}

impl CapturedTable {
    /// A row of the stream.
    #[must_use]
    pub fn row<'c, 'r>(&'c self, tuple: Tuple<'r>) -> TupleRow<'c, 'r> {
        let mut columns = Vec::with_capacity(tuple.len());
        columns.extend(tuple.columns());
        TupleRow { columns: &self.columns, tuple: columns }
    }

    /// A row of a snapshot: the same text forms, from a query.
    #[must_use]
    pub fn text_row<'c, 'r>(&'c self, row: &'r [Option<String>]) -> TupleRow<'c, 'r> {
        let column = |text: &'r Option<String>| match text {
            Some(text) => TupleColumn::Text(text.as_bytes()),
            None => TupleColumn::Null,
        };
        TupleRow { columns: &self.columns, tuple: row.iter().map(column).collect() }
    }
}
