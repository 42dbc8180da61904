//! `snapshot.*`: what is published of rows that exist when a connector starts, and how they are read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::Options;
use crate::source::table_filter::Lists;

/// Longest delay that can be asked for: a day.
const DELAY_MAX_MS: u64 = 24 * 3600 * 1000;

/// Where the statements of single tables stand.
const OVERRIDES: &str = "snapshot.select.statement.overrides";

/// `snapshot.mode`: what is read of rows that exist when a connector starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotMode {
    /// They are published, once, before the stream begins.
    #[default]
    Initial,
    /// They are published at each start, before the stream goes on.
    Always,
    /// They are published once, and nothing is streamed.
    InitialOnly,
    /// As `Initial`, and again when the slot is gone or has lost its WAL.
    WhenNeeded,
    /// They are left alone: only what the slot delivers counts.
    NoData,
}

impl SnapshotMode {
    /// Whether anything is streamed, so that a publication and a slot are needed.
    #[must_use]
    pub const fn streams(self) -> bool {
        !matches!(self, Self::InitialOnly)
    }
}

/// How a snapshot is taken.
#[derive(Debug, Clone, Default)]
pub struct SnapshotConfig {
    /// `snapshot.mode`.
    pub mode: SnapshotMode,
    /// `snapshot.include.collection.list`: tables of those captured whose rows are read.
    include: Lists,
    /// `snapshot.select.statement.overrides`: by `schema.table`, the statement that reads it.
    overrides: BTreeMap<String, String>,
    /// `snapshot.locking.mode=shared`: all tables are locked against changes of their shape, each within this time
    /// (`snapshot.lock.timeout.ms`).
    pub lock_timeout: Option<Duration>,
    /// `snapshot.fetch.size`: rows that are fetched at once, at the most.
    pub fetch_rows_max: Option<usize>,
    /// `snapshot.delay.ms`: before a snapshot.
    pub delay: Duration,
    /// `streaming.delay.ms`: between a snapshot and the stream.
    pub streaming_delay: Duration,
}

impl SnapshotConfig {
    pub(super) fn parse(options: &mut Options<'_>) -> Self {
        let modes = [
            ("initial", SnapshotMode::Initial),
            ("always", SnapshotMode::Always),
            ("initial_only", SnapshotMode::InitialOnly),
            ("when_needed", SnapshotMode::WhenNeeded),
            ("no_data", SnapshotMode::NoData),
            // Older words for it.
            ("never", SnapshotMode::NoData),
            ("schema_only", SnapshotMode::NoData),
        ];
        let locking = [("none", false), ("shared", true)];
        let is_locked = options.choice("snapshot.locking.mode", &locking, false);
        let lock_timeout =
            options.milliseconds("snapshot.lock.timeout.ms", 10_000, 0..=DELAY_MAX_MS);
        let fetch_rows_max = options.number("snapshot.fetch.size", 0, 0..=u64::from(u32::MAX));
        // Debezium takes the isolation from the slot's snapshot as well, where it has just made the slot.
        let isolations = ["serializable", "repeatable_read", "read_committed", "read_uncommitted"];
        options.choice("snapshot.isolation.mode", &isolations.map(|word| (word, ())), ());
        Self {
            mode: options.choice("snapshot.mode", &modes, SnapshotMode::Initial),
            include: Lists::parse(options, &["snapshot.include.collection.list"], &[]),
            overrides: overrides(options),
            lock_timeout: is_locked.then_some(lock_timeout),
            fetch_rows_max: usize::try_from(fetch_rows_max).ok().filter(|rows| *rows > 0),
            delay: options.milliseconds("snapshot.delay.ms", 0, 0..=DELAY_MAX_MS),
            streaming_delay: options.milliseconds("streaming.delay.ms", 0, 0..=DELAY_MAX_MS),
        }
    }

    /// Whether the rows of a captured table are read.
    #[must_use]
    pub fn reads(&self, schema: &str, table: &str) -> bool {
        self.include.pass(&format!("{schema}.{table}"))
    }

    /// The statement that reads a table instead of the usual one.
    #[must_use]
    pub fn statement(&self, schema: &str, table: &str) -> Option<&str> {
        self.overrides.get(&format!("{schema}.{table}")).map(String::as_str)
    }
}

/// The list names the tables; each has an option of its own with the statement.
fn overrides(options: &mut Options<'_>) -> BTreeMap<String, String> {
    let mut statements = options.with_prefix(&format!("{OVERRIDES}."));
    let listed = options.text(OVERRIDES).unwrap_or_default();
    let mut overrides = BTreeMap::new();
    for table in listed.split(',').map(str::trim).filter(|table| !table.is_empty()) {
        match statements.remove(table) {
            Some(statement) => {
                let statement = statement.trim().trim_end_matches(';').to_owned();
                overrides.insert(table.replace('"', ""), statement);
            }
            // Debezium says so in its log and reads the whole table.
            None => options.refuse(
                OVERRIDES,
                Some(table.to_owned()),
                format!("give the statement as {OVERRIDES}.{table}"),
            ),
        }
    }
    for table in statements.keys() {
        let message = format!("name the table in {OVERRIDES}");
        options.refuse(&format!("{OVERRIDES}.{table}"), None, message);
    }
    overrides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<SnapshotConfig, Vec<String>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let config = SnapshotConfig::parse(&mut options);
        match options.finish() {
            Ok(_) => Ok(config),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn what_a_snapshot_is_told_is_read() {
        let default = parse(&[]).unwrap();
        assert_eq!(default.mode, SnapshotMode::Initial);
        assert_eq!((default.lock_timeout, default.fetch_rows_max), (None, None));
        assert!(default.reads("a", "b") && default.statement("a", "b").is_none());
        for word in ["never", "schema_only", "NO_DATA"] {
            assert_eq!(parse(&[("snapshot.mode", word)]).unwrap().mode, SnapshotMode::NoData);
        }
        let shared = parse(&[("snapshot.locking.mode", "shared")]).unwrap();
        assert_eq!(shared.lock_timeout, Some(Duration::from_secs(10)));
        let listed = parse(&[
            ("snapshot.include.collection.list", "a\\.b.*"),
            ("snapshot.select.statement.overrides", "a.b"),
            ("snapshot.select.statement.overrides.a.b", "select 1;"),
        ]);
        let listed = listed.unwrap();
        assert!(listed.reads("a", "bc") && !listed.reads("b", "a"));
        assert_eq!(listed.statement("a", "b"), Some("select 1"));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for option in ["snapshot.mode", "snapshot.locking.mode", "snapshot.isolation.mode"] {
            assert_eq!(parse(&[(option, "custom")]).unwrap_err(), [option]);
        }
        let alone = [("snapshot.select.statement.overrides", "a.b")];
        assert_eq!(parse(&alone).unwrap_err(), ["snapshot.select.statement.overrides"]);
        let unlisted = [("snapshot.select.statement.overrides.a.b", "select 1")];
        assert_eq!(parse(&unlisted).unwrap_err(), ["snapshot.select.statement.overrides.a.b"]);
    }
}
