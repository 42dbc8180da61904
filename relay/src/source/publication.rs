//! The publication: which tables PostgreSQL puts into the stream; found, or created when missing.

use super::connection::Connection;
use super::error::SourceError;
use super::table_filter::TableFilter;
use super::wal::{quote_identifier, quote_literal};
use crate::connector_config::{DatabaseConfig, Options};

/// A publication's name where none is given, as in Debezium.
const PUBLICATION_DEFAULT: &str = "dbz_publication";

/// Longest name: PostgreSQL's NAMEDATALEN less the terminating byte.
const NAME_MAX: usize = 63;

/// SQLSTATE `duplicate_object`: another relay has created it at the same moment.
const DUPLICATE_OBJECT: &str = "42710";

/// `publication.name` and `publication.autocreate.mode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationConfig {
    /// Its name.
    pub name: String,
    /// What to do when it is missing.
    pub autocreate: Autocreate,
    /// `publish.via.partition.root`: changes of partitions come as changes of the partitioned table.
    pub via_partition_root: bool,
}

/// `publication.autocreate.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autocreate {
    /// For all tables of the database; needs a superuser.
    AllTables,
    /// For the captured tables; a publication that exists is changed to hold them.
    Filtered,
    /// It must exist.
    Disabled,
    /// Without any table.
    NoTables,
}

impl PublicationConfig {
    pub(crate) fn parse(options: &mut Options<'_>) -> Self {
        let name =
            options.text("publication.name").unwrap_or_else(|| PUBLICATION_DEFAULT.to_owned());
        if name.is_empty() || name.len() > NAME_MAX {
            let message = format!("it is a name of 1 to {NAME_MAX} bytes");
            options.refuse("publication.name", Some(name.clone()), message);
        }
        let choices = [
            ("all_tables", Autocreate::AllTables),
            ("filtered", Autocreate::Filtered),
            ("disabled", Autocreate::Disabled),
            ("no_tables", Autocreate::NoTables),
        ];
        let autocreate =
            options.choice("publication.autocreate.mode", &choices, Autocreate::AllTables);
        let via_partition_root = options.flag("publish.via.partition.root", false);
        Self { name, autocreate, via_partition_root }
    }

    /// What a publication is created with.
    const fn with(&self) -> &'static str {
        if self.via_partition_root { " with (publish_via_partition_root = true)" } else { "" }
    }
}

/// Finds the publication, or creates it as configured. Returns what was done, for the log; `None`: it was there.
///
/// # Errors
/// When it is missing and may not or cannot be created, or no table matches yet.
pub async fn ensure(
    connection: &mut Connection,
    config: &PublicationConfig,
    filter: &TableFilter,
    database: &DatabaseConfig,
) -> Result<Option<String>, SourceError> {
    let sql = format!(
        "select puballtables from pg_publication where pubname = {}",
        quote_literal(&config.name)
    );
    let rows = connection.query("look at the publications", &sql).await?;
    let for_all_tables = rows.into_iter().next().map(|row| row == [Some("t".to_owned())]);
    let name = quote_identifier(&config.name);
    let command = match (config.autocreate, for_all_tables) {
        (Autocreate::Filtered, Some(true)) => {
            return Err(unusable(
                config,
                "publication.autocreate.mode is `filtered`, but it is FOR ALL TABLES; \
                 drop it, choose another publication.name, or use all_tables",
            ));
        }
        (Autocreate::Filtered, Some(false)) => {
            return add_missing_tables(connection, config, filter, database).await;
        }
        (_, Some(true)) => return Ok(None),
        (_, Some(false)) => {
            warn_of_unpublished(connection, config, filter, database).await?;
            return Ok(None);
        }
        (Autocreate::Disabled, None) => {
            return Err(unusable(
                config,
                "it does not exist and publication.autocreate.mode is `disabled`; create it \
                 with CREATE PUBLICATION, or use filtered",
            ));
        }
        (Autocreate::AllTables, None) => {
            format!("create publication {name} for all tables{}", config.with())
        }
        (Autocreate::NoTables, None) => format!("create publication {name}{}", config.with()),
        (Autocreate::Filtered, None) => {
            let tables = captured_tables(connection, filter, database).await?;
            format!("create publication {name} for table {}{}", tables.join(", "), config.with())
        }
    };
    run(connection, &config.name, command).await.map(Some)
}

/// A publication for certain tables must hold all that are captured: a table that was created later is added.
/// Tables that are in it already, by somebody's hand or with a row filter, are left as they are.
async fn add_missing_tables(
    connection: &mut Connection,
    config: &PublicationConfig,
    filter: &TableFilter,
    database: &DatabaseConfig,
) -> Result<Option<String>, SourceError> {
    let missing = unpublished_tables(connection, config, filter, database).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    let name = quote_identifier(&config.name);
    let command = format!("alter publication {name} add table {}", missing.join(", "));
    run(connection, &config.name, command).await.map(Some)
}

/// Captured tables that the publication does not hold.
async fn unpublished_tables(
    connection: &mut Connection,
    config: &PublicationConfig,
    filter: &TableFilter,
    database: &DatabaseConfig,
) -> Result<Vec<String>, SourceError> {
    let captured = captured_tables(connection, filter, database).await?;
    // By itself, or as a partition or a table of a schema that is published.
    let sql = format!(
        "select n.nspname, c.relname from pg_publication_rel r \
         join pg_publication p on p.oid = r.prpubid join pg_class c on c.oid = r.prrelid \
         join pg_namespace n on n.oid = c.relnamespace where p.pubname = {name} \
         union select schemaname, tablename from pg_publication_tables where pubname = {name}",
        name = quote_literal(&config.name)
    );
    let published = connection.query("look at the published tables", &sql).await?;
    let published: Vec<String> = published.iter().filter_map(|row| qualified(row)).collect();
    Ok(captured.into_iter().filter(|table| !published.contains(table)).collect())
}

/// A publication that somebody else keeps is left as it is; a table that it lacks is never streamed.
async fn warn_of_unpublished(
    connection: &mut Connection,
    config: &PublicationConfig,
    filter: &TableFilter,
    database: &DatabaseConfig,
) -> Result<(), SourceError> {
    let missing = match unpublished_tables(connection, config, filter, database).await {
        Ok(missing) => missing,
        // The tables may come later, and into the publication with them.
        Err(SourceError::TableMissing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for table in missing {
        tracing::warn!(
            publication.name = config.name,
            table,
            "the table is captured, but the publication does not hold it: ALTER PUBLICATION ... ADD TABLE"
        );
    }
    Ok(())
}

async fn run(
    connection: &mut Connection,
    publication: &str,
    command: String,
) -> Result<String, SourceError> {
    let doing = format!("create or change publication \"{publication}\"");
    match connection.query(&doing, &command).await {
        Ok(_) => Ok(command),
        Err(SourceError::Server { error, .. }) if error.code == DUPLICATE_OBJECT => Ok(command),
        Err(error) => Err(error),
    }
}

/// Tables that exist and are captured, quoted for SQL.
async fn captured_tables(
    connection: &mut Connection,
    filter: &TableFilter,
    database: &DatabaseConfig,
) -> Result<Vec<String>, SourceError> {
    // A partition is published through the table that it is a part of, or for itself where only it is captured.
    let sql = "select n.nspname, c.relname, wn.nspname, w.relname from pg_class c \
               join pg_namespace n on n.oid = c.relnamespace \
               left join pg_class w on c.relispartition and w.oid = pg_partition_root(c.oid) \
               left join pg_namespace wn on wn.oid = w.relnamespace \
               where c.relkind in ('r', 'p') and c.relpersistence = 'p' order by 1, 2";
    let rows = connection.query("look at the tables", sql).await?;
    let captures = |row: &[Option<String>]| match row {
        [Some(schema), Some(table)] => filter.captures(schema, table),
        _ => false,
    };
    let captured: Vec<String> = rows
        .iter()
        .filter_map(|row| row.split_at_checked(2))
        .filter(|(table, whole)| captures(table) && !captures(whole))
        .filter_map(|(table, _)| qualified(table))
        .collect();
    if captured.is_empty() {
        let (filter, database) = (filter.describe(), database.name.clone());
        return Err(SourceError::TableMissing { filter, database });
    }
    Ok(captured)
}

fn qualified(row: &[Option<String>]) -> Option<String> {
    match row {
        [Some(schema), Some(table)] => {
            Some(format!("{}.{}", quote_identifier(schema), quote_identifier(table)))
        }
        _ => None,
    }
}

fn unusable(config: &PublicationConfig, reason: &str) -> SourceError {
    SourceError::PublicationUnusable { publication: config.name.clone(), reason: reason.to_owned() }
}
