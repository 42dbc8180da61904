//! Plays one case: set-up, slot, statements, then each message of the slot through columns, router and converters.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use event_router::change::{Change, Operation, Table};
use event_router::java_regex::Regex;
use event_router::{Header, Outcome, RouteError, Router, RouterOptions, Skipped};
use pgoutput::{Message, OldTuple, Relation, Tuple, TupleColumn};
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

/// Debezium's class.
const ROUTER: &str = "io.debezium.transforms.outbox.EventRouter";

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
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    skipped_operations: String,
    tolerant: bool,
    modes: ValueModes,
    router: Router,
    converters: Converters,
    tables: HashMap<u32, Option<(Arc<Table>, Arc<TableColumns>)>>,
    played: Played,
}

impl Player {
    fn new(config: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |option: &str| config.get(option).cloned().unwrap_or_default();
        let alias = text("transforms");
        let prefix = format!("transforms.{alias}.");
        if alias.is_empty() || alias.contains(',') {
            return Err(format!("a chain of transforms: {alias:?}"));
        }
        if text(&format!("{prefix}type")) != ROUTER
            || config.contains_key(&format!("{prefix}predicate"))
        {
            return Err("another transform or a predicate".to_owned());
        }
        let own = |(name, value): (&String, &String)| {
            name.strip_prefix(&prefix).map(|name| (name.to_owned(), value.clone()))
        };
        let options: BTreeMap<_, _> = config.iter().filter_map(own).collect();
        let (options, _) =
            RouterOptions::parse(&options).map_err(|problems| format!("{problems:?}"))?;
        let modes = ValueModes::parse(config).map_err(|problems| format!("{problems:?}"))?;
        let converters = Converters::parse(config, &BTreeMap::new())
            .map_err(|problems| format!("{problems:?}"))?;
        let expressions = |option: &str| -> Result<Vec<Regex>, String> {
            let list = text(option);
            let list = list.split(',').map(str::trim).filter(|part| !part.is_empty());
            list.map(|part| Regex::new(&format!("(?i){part}")).map_err(|error| error.to_string()))
                .collect()
        };
        Ok(Self {
            topic_prefix: text("topic.prefix"),
            include: expressions("table.include.list")?,
            exclude: expressions("table.exclude.list")?,
            skipped_operations: config
                .get("skipped.operations")
                .map_or("t", String::as_str)
                .to_owned(),
            tolerant: text("errors.tolerance") == "all",
            router: Router::new(options).write_json(converters.writes_plain_json()),
            modes,
            converters,
            tables: HashMap::new(),
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
        let matches =
            |list: &[Regex]| list.iter().any(|regex| regex.matches(&name).unwrap_or(false));
        if (!self.include.is_empty() && !matches(&self.include)) || matches(&self.exclude) {
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
            Message::Insert(insert) => {
                self.change(insert.relation_id, Operation::Create, Some(insert.new), Vec::new());
            }
            Message::Update(update) => {
                let old = update.old.map(|old| match old {
                    OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
                });
                self.update(update.relation_id, old, update.new);
            }
            Message::Delete(delete) => {
                self.change(delete.relation_id, Operation::Delete, None, Vec::new())
            }
            Message::Truncate(truncate) => {
                for relation in &truncate.relation_ids {
                    self.change(*relation, Operation::Truncate, None, Vec::new());
                }
            }
            Message::LogicalMessage(_) => {
                self.fail(
                    "message",
                    "messages of pg_logical_emit_message are not published yet".to_owned(),
                );
            }
            _ => {}
        }
    }

    fn update(&mut self, relation: u32, old: Option<Tuple<'_>>, new: Tuple<'_>) {
        let Some(Some((table, columns))) = self.tables.get(&relation).cloned() else { return };
        let topic = columns.topic(&self.topic_prefix, &table.schema, &table.name);
        let new_columns: Vec<TupleColumn<'_>> = new.columns().collect();
        let header = match old {
            None => Ok(None),
            Some(old) => {
                let old_columns: Vec<TupleColumn<'_>> = old.columns().collect();
                columns.old_key_header(&topic, &old_columns, &new_columns)
            }
        };
        match header {
            Ok(None) => self.change(relation, Operation::Update, Some(new), Vec::new()),
            Ok(Some(header)) => self.change(relation, Operation::Create, Some(new), vec![header]),
            Err(error) => self.fail("poll", error.to_string()),
        }
    }

    fn change<'r>(
        &mut self,
        relation: u32,
        operation: Operation,
        tuple: Option<Tuple<'r>>,
        headers: Vec<Header<'r>>,
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
            tuple.map(|tuple| TupleRow { columns: &columns, tuple: tuple.columns().collect() });
        let change = Change {
            table: &table,
            operation,
            after: row.as_ref().map(|row| row as _),
            event_ts_ms: EVENT_TS_MS,
            headers,
        };
        match self.router.route(change) {
            Ok(Outcome::Skipped(Skipped::Delete)) => {}
            Ok(Outcome::Skipped(Skipped::UpdateWarned)) => self.played.logs.push("WARN"),
            Ok(Outcome::Skipped(Skipped::UpdateReported)) => self.played.logs.push("ERROR"),
            Ok(Outcome::Routed(event, warnings)) => {
                self.played.logs.extend(warnings.iter().map(|_| "WARN"));
                match self.converters.convert(*event) {
                    Ok(record) => self.played.records.push(record),
                    Err(ConvertError { stage, reason, .. }) => self.fail(stage_name(stage), reason),
                }
            }
            Err(RouteError::Value(error)) => self.fail("poll", error.to_string()),
            Err(error) => self.fail("transform", error.to_string()),
        }
    }

    fn fail(&mut self, stage: &'static str, reason: String) {
        if !self.tolerant {
            self.played.error = Some((stage, reason));
        }
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
