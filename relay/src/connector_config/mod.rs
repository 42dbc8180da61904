//! A connector's options, read once from Debezium's and Connect's names, each refusal with the option's name.

mod database;
mod database_tls;
mod dead_letters;
mod delivery;
mod events;
mod guard;
mod metadata;
mod names;
pub mod option_table;
mod options;
mod producer;
mod snapshot;
mod transforms;

use std::collections::BTreeMap;
use std::time::Duration;

pub use database::DatabaseConfig;
pub use database_tls::{ClientCertificate, DatabaseTls, TlsMode};
pub use dead_letters::{
    DeadLetterConfig, ErrorConfig, PARKED_KEYS_MAX_OPTION, StageClasses, TOPIC_OPTION,
    is_legal_topic,
};
pub use delivery::{Boundary, Transactions};
pub use events::{EventConfig, Unreadable};
pub use guard::{BudgetAction, GuardConfig};
pub use metadata::MetadataConfig;
pub use names::is_postgres_connector;
pub(crate) use options::Options;
pub use snapshot::{SnapshotConfig, SnapshotMode};

use event_router::chain::Chain;

use crate::config::WorkerConfig;
use crate::convert::Converters;
use crate::secret::Secret;
use crate::source::publication::PublicationConfig;
use crate::source::table_filter::TableFilter;

/// One option that cannot be taken as it is, for the 400 answer and the validation endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The option's full name, for example `transforms.outbox.route.topic.regex`.
    pub option: String,
    /// The value that was given; `None` when it is missing. Secrets are never put here.
    pub value: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// A connector's configuration, checked.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// The connector's name.
    pub name: String,
    /// `topic.prefix`: the logical name of the server.
    pub topic_prefix: String,
    /// Where the outbox is.
    pub database: DatabaseConfig,
    /// `slot.name`.
    pub slot: String,
    /// `slot.failover`: a standby keeps the slot (PostgreSQL 17 and later).
    pub slot_failover: bool,
    /// `slot.stream.params`: options of pgoutput beside those that the relay needs, with their values.
    pub stream_parameters: Vec<(String, String)>,
    /// `slot.drop.on.stop`: give the slot up when the connector stops.
    pub slot_drop_on_stop: bool,
    /// How long a slot that somebody else reads from is waited for: `slot.max.retries` times `slot.retry.delay.ms`, for
    /// each of `errors.max.retries`. `None`: without limit, as with Debezium's default for the last.
    pub slot_patience: Option<Duration>,
    /// Which tables are published, and who creates the publication.
    pub publication: PublicationConfig,
    /// Which tables are captured of what the publication delivers.
    pub table_filter: TableFilter,
    /// What happens to rows that exist already.
    pub snapshot: SnapshotConfig,
    /// The transforms, the Event Router among them.
    pub chain: Chain,
    /// Which changes become events.
    pub events: EventConfig,
    /// What happens to a change that cannot be published.
    pub errors: ErrorConfig,
    /// Heartbeats and boundaries of transactions.
    pub metadata: MetadataConfig,
    /// Key, value and header converters.
    pub converters: Converters,
    /// How values are represented.
    pub value_modes: crate::columns::ValueModes,
    /// `extended.headers.enabled`: Debezium's context headers before all others.
    pub extended_headers: bool,
    /// `relay.*`: how the slot is watched.
    pub guard: GuardConfig,
    /// `status.update.interval.ms`: the longest time between two acknowledgements.
    pub status_interval: Duration,
    /// Exactly once: how records and position are written together. None: at least once.
    pub transactions: Option<Transactions>,
    /// Properties of the connector's producer: the worker's, and `producer.override.*` over them.
    pub producer_overrides: BTreeMap<String, Secret>,
    /// Options that have no effect here, each with the reason; said in the log when the task starts.
    pub remarks: Vec<String>,
}

impl ConnectorConfig {
    /// Reads the options of a connector.
    ///
    /// # Errors
    /// Every option that is missing, malformed or not supported, not only the first.
    pub fn parse(
        properties: &BTreeMap<String, String>,
        worker: &WorkerConfig,
    ) -> Result<Self, Vec<OptionError>> {
        let mut options = Options::new(properties);
        let name = options.text("name").unwrap_or_default();
        names::check_class(&mut options);
        names::check_task_limit(&mut options);
        let database = database::read(&mut options, worker);
        let topic_prefix = names::topic_prefix(&mut options);
        let slot = names::slot(&mut options);
        let slot_patience = names::slot_patience(&mut options);
        let slot_drop_on_stop = options.flag("slot.drop.on.stop", false);
        let slot_failover = options.flag("slot.failover", false);
        let stream_parameters = names::stream_parameters(&mut options);
        let table_filter = TableFilter::parse(&mut options);
        let publication = PublicationConfig::parse(&mut options);
        let snapshot = SnapshotConfig::parse(&mut options);
        let extended_headers = options.flag("extended.headers.enabled", true);
        let status_interval = options.milliseconds("status.update.interval.ms", 10_000, 1..=60_000);
        let guard = GuardConfig::parse(&mut options);
        let chain = transforms::read(&mut options, worker);
        let events = EventConfig::parse(&mut options);
        let errors = ErrorConfig::parse(&mut options, &worker.converters);
        let metadata = MetadataConfig::parse(&mut options, &topic_prefix);
        let value_modes = options.try_with(crate::columns::ValueModes::parse).unwrap_or_default();
        let converters =
            options.try_with(|properties| Converters::parse(properties, &worker.converters));
        let producer_overrides = producer::read(&mut options, worker);
        let transactions =
            delivery::read(&mut options, worker, &name, &topic_prefix, &producer_overrides);
        option_table::check_the_rest(&mut options);
        let remarks = options.finish()?;
        let (Some(chain), Some(converters)) = (chain, converters) else {
            // Each of the two leaves an error behind when it is missing, so `finish` has failed already.
            return Err(Vec::new());
        };
        Ok(Self {
            name,
            topic_prefix,
            database,
            slot,
            slot_failover,
            stream_parameters,
            slot_drop_on_stop,
            slot_patience,
            publication,
            table_filter,
            snapshot,
            chain,
            events,
            errors,
            metadata,
            converters,
            value_modes,
            extended_headers,
            guard,
            status_interval,
            transactions,
            producer_overrides,
            remarks,
        })
    }
}
