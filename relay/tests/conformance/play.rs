//! Plays one case: set-up, slot, statements, then each message of the slot through columns, router and converters.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use event_router::chain::{Chain, Input};
use event_router::change::{Change, Operation, Table, ValueError};
use event_router::data::Value;
use event_router::envelope::{Key, RawChange, Source, message_event, tombstone};
use event_router::java_regex::Regex;
use event_router::{Header, RouteError, Skipped};
use pgoutput::{LogicalMessage, Message, OldTuple, Relation, Tuple, TupleColumn, Update};
use relay::columns::{
    COLUMN_QUERY, Catalog, TYPE_QUERY, TableColumns, TupleRow, TypeRegistry, ValueModes,
};
use relay::convert::{ConvertError, Converters, Stage};
use relay::record::Record;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row as _};
use testbed::{PostgresDatabase, Servers, unique_name};

use crate::case::Case;

/// Stands for the time at which a change is handled.
pub(crate) const EVENT_TS_MS: i64 = 1_700_000_000_000;

/// Stands for `source.sequence`.
pub(crate) const SEQUENCE: &str = "[\"1\",\"1\"]";

/// What became of a case.
#[derive(Debug, Default)]
pub(crate) struct Played {
    pub(crate) records: Vec<Record>,
    /// Stage and reason.
    pub(crate) error: Option<(&'static str, String)>,
    pub(crate) logs: Vec<&'static str>,
}

/// A part of the names of the cases to run; all are run unless a developer asks for less.
#[allow(
    clippy::disallowed_methods,
    reason = "a developer's filter, no configuration of the product"
)]
pub(crate) fn name_filter() -> Option<String> {
    std::env::var("CONFORMANCE_CASE").ok()
}

/// Plays a case in a database of its own.
pub(crate) async fn play(case: &Case, servers: &Servers) -> Result<Played> {
    if let Some(requirement) = &case.requires {
        bail!("requires {requirement}, which the relay does not have");
    }
    let mut player = match Player::new(&case.connector_config) {
        Ok(player) => player,
        Err(reason) => {
            return Ok(Played { error: Some(("configure", reason)), ..Played::default() });
        }
    };
    let database = servers.postgres_database().await?;
    let slot = unique_name("conformance");
    let mut connection = connect(&database).await?;
    run(&mut connection, &case.setup).await?;
    sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')")
        .bind(&slot)
        .execute(&mut connection)
        .await?;
    let played = play_statements(case, &mut player, &database, &mut connection, &slot).await;
    sqlx::query("select pg_drop_replication_slot($1)").bind(&slot).execute(&mut connection).await?;
    played.map(|()| player.played)
}

async fn play_statements(
    case: &Case,
    player: &mut Player,
    database: &PostgresDatabase,
    connection: &mut PgConnection,
    slot: &str,
) -> Result<()> {
    run(connection, &case.sql).await?;
    // The settings of the database hold for connections made after the set-up.
    let mut reader = connect(database).await?;
    player.read(&mut reader, slot).await?;
    if !case.live_sql.is_empty() {
        run(connection, &case.live_sql).await?;
        player.read(&mut reader, slot).await?;
    }
    Ok(())
}

async fn connect(database: &PostgresDatabase) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(&database.url())?.extra_float_digits(None);
    let mut connection = options.disable_statement_logging().connect().await?;
    // The slot shows what is flushed; the test servers do not flush at each commit.
    connection.execute("set synchronous_commit = on").await?;
    Ok(connection)
}

async fn run(connection: &mut PgConnection, statements: &[String]) -> Result<()> {
    for statement in statements {
        let statement = match statement.strip_suffix(FOR_ALL_TABLES) {
            Some(publication) => format!("{publication}{}", all_tables(connection).await?),
            None => statement.clone(),
        };
        let result = connection.execute(AssertSqlSafe(statement.clone())).await;
        result.with_context(|| format!("{statement:.200}"))?;
    }
    Ok(())
}

/// A publication of all tables takes a superuser, which the tests are not: the tables are named instead.
const FOR_ALL_TABLES: &str = " for all tables";

async fn all_tables(connection: &mut PgConnection) -> Result<String> {
    let tables = "select string_agg(format('%I.%I', n.nspname, c.relname), ', ') from pg_class c \
                  join pg_namespace n on n.oid = c.relnamespace \
                  where c.relkind in ('r', 'p') and not c.relispartition \
                  and n.nspname not in ('pg_catalog', 'information_schema')";
    let tables: String = sqlx::query_scalar(tables).fetch_one(connection).await?;
    Ok(format!(" for table {tables}"))
}

/// A connector's parts and what they made so far.
struct Player {
    topic_prefix: String,
    delimiter: String,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    message_include: Vec<Regex>,
    message_exclude: Vec<Regex>,
    skipped_operations: String,
    tombstones: bool,
    tolerant: bool,
    modes: ValueModes,
    chain: Chain,
    converters: Converters,
    tables: HashMap<u32, Option<Captured>>,
    transaction: Option<i64>,
    played: Played,
}

type Captured = (Arc<Table>, Arc<TableColumns>);

impl Player {
    fn new(config: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |option: &str| config.get(option).cloned().unwrap_or_default();
        let expressions = |option: &str| -> Result<Vec<Regex>, String> {
            let list = text(option);
            let list = list.split(',').map(str::trim).filter(|part| !part.is_empty());
            list.map(|part| Regex::new(&format!("(?i){part}")).map_err(|error| error.to_string()))
                .collect()
        };
        let converters = Converters::parse(config, &BTreeMap::new())
            .map_err(|problems| format!("{problems:?}"))?;
        let (chain, _) = Chain::parse(config).map_err(|problems| format!("{problems:?}"))?;
        Ok(Self {
            topic_prefix: text("topic.prefix"),
            delimiter: config.get("topic.delimiter").map_or(".", String::as_str).to_owned(),
            include: expressions("table.include.list")?,
            exclude: expressions("table.exclude.list")?,
            message_include: expressions("message.prefix.include.list")?,
            message_exclude: expressions("message.prefix.exclude.list")?,
            skipped_operations: config
                .get("skipped.operations")
                .map_or("t", String::as_str)
                .to_owned(),
            tombstones: text("tombstones.on.delete") != "false",
            tolerant: text("errors.tolerance") == "all",
            chain: chain.write_json(converters.writes_plain_json()),
            modes: ValueModes::parse(config).map_err(|problems| format!("{problems:?}"))?,
            converters,
            tables: HashMap::new(),
            transaction: None,
            played: Played::default(),
        })
    }

    /// Works off what the slot has, until the task would stop.
    async fn read(&mut self, connection: &mut PgConnection, slot: &str) -> Result<()> {
        let rows = sqlx::query(
            "select data from pg_logical_slot_get_binary_changes($1, null, null, \
             'proto_version', '1', 'publication_names', 'dbz_publication', 'messages', 'true')",
        )
        .bind(slot)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let bytes: Vec<u8> = row.get(0);
            if self.played.error.is_some() {
                break;
            }
            match pgoutput::decode(&bytes)? {
                Message::Relation(relation) => self.relation(connection, &relation).await?,
                message => self.message(&message),
            }
        }
        Ok(())
    }

    async fn relation(
        &mut self,
        connection: &mut PgConnection,
        relation: &Relation<'_>,
    ) -> Result<()> {
        let name = format!("{}.{}", relation.namespace, relation.name);
        if (!self.include.is_empty() && !matches(&self.include, &name))
            || matches(&self.exclude, &name)
        {
            self.tables.insert(relation.id, None);
            return Ok(());
        }
        let mut types = TypeRegistry::default();
        for row in texts(connection, TYPE_QUERY.to_owned()).await? {
            types.learn(&row);
        }
        let mut catalog = Catalog::default();
        for row in texts(connection, COLUMN_QUERY.replace("{}", &relation.id.to_string())).await? {
            catalog.learn(&row);
        }
        let columns = TableColumns::with_catalog(relation, &catalog, &types, &self.modes);
        let table = columns.table(&self.topic_prefix, relation.namespace, relation.name);
        self.tables.insert(relation.id, Some((Arc::new(table), Arc::new(columns))));
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>) {
        match message {
            Message::Begin(begin) => self.transaction = Some(i64::from(begin.xid)),
            Message::Commit(_) => self.transaction = None,
            Message::Insert(insert) => {
                self.change(insert.relation_id, Operation::Create, None, Some(insert.new), None);
            }
            Message::Update(update) => self.update(update),
            Message::Delete(delete) => {
                let (OldTuple::Key(old) | OldTuple::Full(old)) = delete.old;
                self.change(delete.relation_id, Operation::Delete, Some(old), None, None);
            }
            Message::Truncate(truncate) => {
                for relation in &truncate.relation_ids {
                    self.change(*relation, Operation::Truncate, None, None, None);
                }
            }
            Message::LogicalMessage(message) => self.logical_message(message),
            _ => {}
        }
    }

    fn logical_message(&mut self, message: &LogicalMessage<'_>) {
        let prefix = message.prefix;
        let is_included = self.message_include.is_empty() || matches(&self.message_include, prefix);
        if !is_included || matches(&self.message_exclude, prefix) {
            return;
        }
        let topic = format!("{}{}message", self.topic_prefix, self.delimiter);
        let server = self.topic_prefix.clone();
        let transaction = self.transaction.filter(|_| message.transactional);
        let source = source(&server, "", "", transaction);
        let event = message_event(topic, &source, prefix, message.content, EVENT_TS_MS);
        self.send(Input::Event(Box::new(event)));
    }

    /// An update of the key counts as a delete, its tombstone, and a create.
    fn update(&mut self, update: &Update<'_>) {
        let Some(Some((table, columns))) = self.tables.get(&update.relation_id).cloned() else {
            return;
        };
        let topic = columns.topic(&self.topic_prefix, &table.schema, &table.name);
        let old = update.old.map(|old| match old {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
        });
        let headers = old.map(|old| {
            let old: Vec<TupleColumn<'_>> = old.columns().collect();
            let new: Vec<TupleColumn<'_>> = update.new.columns().collect();
            Ok::<_, ValueError>((
                columns.old_key_header(&topic, &old, &new)?,
                columns.new_key_header(&topic, &old, &new)?,
            ))
        });
        match headers.transpose() {
            Ok(Some((Some(old_key), Some(new_key)))) => {
                let relation = update.relation_id;
                self.change(relation, Operation::Delete, old, None, Some(new_key));
                self.change(relation, Operation::Create, None, Some(update.new), Some(old_key));
            }
            Ok(_) => {
                self.change(update.relation_id, Operation::Update, old, Some(update.new), None)
            }
            Err(error) => self.fail("poll", error.to_string()),
        }
    }

    fn change<'r>(
        &mut self,
        relation: u32,
        operation: Operation,
        old: Option<Tuple<'r>>,
        new: Option<Tuple<'r>>,
        header: Option<Header<'r>>,
    ) {
        let code = match operation {
            Operation::Create | Operation::Read => 'c',
            Operation::Update => 'u',
            Operation::Delete => 'd',
            Operation::Truncate => 't',
        };
        if self.skipped_operations.contains(code) && self.skipped_operations != "none" {
            return;
        }
        let Some(Some((table, columns))) = self.tables.get(&relation).cloned() else { return };
        let row =
            |tuple: Tuple<'r>| TupleRow { columns: &columns, tuple: tuple.columns().collect() };
        let (before, after) = (old.map(row), new.map(row));
        let topic = columns.topic(&self.topic_prefix, &table.schema, &table.name);
        let known = after.as_ref().or(before.as_ref());
        let key = match known.map(|row| columns.key(&topic, &row.tuple)).transpose() {
            Ok(key) => key.flatten(),
            Err(error) => return self.fail("poll", error.to_string()),
        };
        let key = Key {
            schema: key.as_ref().map(|key| Arc::clone(key.schema())),
            value: key.map_or(Value::Null, |key| Value::Struct(Box::new(key))),
        };
        let change = Change {
            table: &table,
            operation,
            after: after.as_ref().map(|row| row as _),
            event_ts_ms: EVENT_TS_MS,
            headers: header.into_iter().collect(),
        };
        let server = self.topic_prefix.clone();
        let raw = RawChange {
            change: &change,
            before: before.as_ref().map(|row| row as _),
            topic: topic.clone(),
            key: key.clone(),
            source: source(&server, &table.schema, &table.name, self.transaction),
            event_ts_us: EVENT_TS_MS * 1000,
        };
        self.send(Input::Change(Box::new(raw)));
        if operation == Operation::Delete && self.tombstones && key.schema.is_some() {
            self.send(Input::Event(Box::new(tombstone(topic, key, change.headers.clone()))));
        }
    }

    fn send(&mut self, input: Input<'_, '_>) {
        if self.played.error.is_some() {
            return;
        }
        let output = match self.chain.apply(input) {
            Ok(output) => output,
            Err(error) => {
                self.played.logs.extend(self.chain.take_warnings().iter().map(|_| "WARN"));
                let is_value = matches!(error, RouteError::Value(_));
                return self.fail(if is_value { "poll" } else { "transform" }, error.to_string());
            }
        };
        self.played.logs.extend(output.warnings.iter().map(|_| "WARN"));
        match output.skipped {
            None | Some(Skipped::Delete) => {}
            Some(Skipped::UpdateWarned) => self.played.logs.push("WARN"),
            Some(Skipped::UpdateReported) => self.played.logs.push("ERROR"),
        }
        let Some(event) = output.event else { return };
        match self.converters.convert(*event) {
            Ok(record) => self.played.records.push(record),
            Err(ConvertError { stage, reason, .. }) => self.fail(stage_name(stage), reason),
        }
    }

    fn fail(&mut self, stage: &'static str, reason: String) {
        if !self.tolerant && self.played.error.is_none() {
            self.played.error = Some((stage, reason));
        }
    }
}

fn matches(list: &[Regex], name: &str) -> bool {
    list.iter().any(|regex| regex.matches(name).unwrap_or(false))
}

fn source<'s>(
    server: &'s str,
    schema: &'s str,
    table: &'s str,
    transaction: Option<i64>,
) -> Source<'s> {
    Source {
        server,
        database: "golden",
        commit_ts_us: EVENT_TS_MS * 1000,
        sequence: SEQUENCE,
        schema,
        table,
        transaction,
        lsn: 1,
    }
}

async fn texts(connection: &mut PgConnection, query: String) -> Result<Vec<Vec<Option<String>>>> {
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await?;
    let columns =
        |row: sqlx::postgres::PgRow| (0..row.len()).map(|index| Ok(row.try_get(index)?)).collect();
    rows.into_iter().map(columns).collect()
}

const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Key => "key.converter",
        Stage::Value => "value.converter",
        Stage::Header => "header.converter",
        Stage::Record => "producer",
    }
}
