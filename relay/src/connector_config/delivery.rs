//! At least once or exactly once: `exactly.once.support`, `transaction.boundary`, and what the worker says to them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::Options;
use crate::config::WorkerConfig;
use crate::secret::Secret;

const SUPPORT: &str = "exactly.once.support";
const BOUNDARY: &str = "transaction.boundary";
const INTERVAL: &str = "transaction.boundary.interval.ms";

/// The worker's setting, `CONNECT_EXACTLY_ONCE_SOURCE_SUPPORT`.
const WORKER_SUPPORT: &str = "exactly.once.source.support";

/// The producer's property that bounds a transaction.
const TIMEOUT: &str = "transaction.timeout.ms";

/// How long Kafka lets a transaction be open where nothing else is said: the default of Kafka's Java producer. What a
/// relay left open when it died holds readers back for as long, unless another relay takes over.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// The longest transaction that a broker allows by default (`transaction.max.timeout.ms`).
const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// Beside the interval itself, a transaction takes the time of its commit.
const COMMIT_TIME: Duration = Duration::from_secs(30);

/// A connector's only task.
const TASK: u32 = 0;

/// When a Kafka transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// As soon as what has arrived is published; under load with what gathers.
    Poll,
    /// After this time.
    Interval(Duration),
    /// With the database transaction.
    Connector,
}

/// How records and position are written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transactions {
    /// `transaction.boundary`.
    pub boundary: Boundary,
    /// Kafka Connect's name for the task's producer: two that have it cannot both write.
    pub transactional_id: String,
    /// `transaction.timeout.ms` of the producer.
    pub timeout: Duration,
    /// The topic of the positions.
    pub offset_topic: String,
    /// The key of the connector's position in it, as Kafka Connect writes it.
    pub offset_key: String,
}

/// What the worker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// Nothing was said: exactly once for those who require it.
    AsRequired,
    /// `enabled`: for all, as in Kafka Connect.
    Always,
    /// `disabled` or `preparing`.
    Never,
}

pub(super) fn read(
    options: &mut Options<'_>,
    worker: &WorkerConfig,
    name: &str,
    topic_prefix: &str,
    overrides: &BTreeMap<String, Secret>,
) -> Option<Transactions> {
    let required = options.choice(SUPPORT, &[("requested", false), ("required", true)], false);
    let allowed = worker_allows(options, worker);
    if required && allowed == Worker::Never {
        let message = "this worker does not have exactly-once source support enabled: set \
                       CONNECT_EXACTLY_ONCE_SOURCE_SUPPORT=enabled, or remove that variable";
        options.refuse(SUPPORT, Some("required".to_owned()), message.to_owned());
    }
    let is_on = allowed == Worker::Always || (required && allowed == Worker::AsRequired);
    let boundary = boundary(options, worker, is_on);
    if !is_on {
        return None;
    }
    let timeout = timeout(options, overrides, boundary)?;
    let key = serde_json::json!([name, {"server": topic_prefix}]);
    Some(Transactions {
        boundary,
        transactional_id: format!("{}-{name}-{TASK}", worker.group_id),
        timeout,
        offset_topic: worker.offset_topic.name.clone(),
        offset_key: key.to_string(),
    })
}

fn worker_allows(options: &mut Options<'_>, worker: &WorkerConfig) -> Worker {
    let Some(text) = worker.properties.get(WORKER_SUPPORT) else { return Worker::AsRequired };
    match text.trim().to_ascii_lowercase().as_str() {
        "enabled" => Worker::Always,
        "disabled" | "preparing" => Worker::Never,
        other => {
            let message = format!(
                "CONNECT_EXACTLY_ONCE_SOURCE_SUPPORT of the worker is `{other}`; it is one of \
                 disabled, preparing and enabled"
            );
            options.refuse(SUPPORT, None, message);
            Worker::Never
        }
    }
}

/// Kafka Connect's default of `offset.flush.interval.ms`.
const CONNECT_FLUSH_INTERVAL: Duration = Duration::from_secs(60);

fn boundary(options: &mut Options<'_>, worker: &WorkerConfig, is_on: bool) -> Boundary {
    let words = [("poll", 'p'), ("interval", 'i'), ("connector", 'c')];
    let boundary = options.choice(BOUNDARY, &words, 'p');
    // Kafka Connect takes the interval between two writes of offsets, which is a minute there where it is not set.
    let given = worker.properties.get("offset.flush.interval.ms").is_some();
    let default = if given { worker.offset_flush_interval } else { CONNECT_FLUSH_INTERVAL };
    let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
    let max = u64::try_from((TIMEOUT_MAX - COMMIT_TIME).as_millis()).unwrap_or(u64::MAX);
    let is_given = options.text(INTERVAL).is_some();
    let interval = options.milliseconds(INTERVAL, default.clamp(1, max), 1..=max);
    if is_given && boundary != 'i' {
        options.remark(format!("option `{INTERVAL}` has no effect without {BOUNDARY}=interval"));
    }
    match boundary {
        'c' if !is_on => {
            // As in Kafka Connect: whoever wants whole transactions would get something else.
            let message = format!("it needs exactly-once delivery; set {SUPPORT}=required");
            options.refuse(BOUNDARY, Some("connector".to_owned()), message);
        }
        'i' if !is_on => {
            options.remark(format!("option `{BOUNDARY}` has no effect without {SUPPORT}=required"));
        }
        _ => {}
    }
    match boundary {
        'i' => Boundary::Interval(interval),
        'c' => Boundary::Connector,
        _ => Boundary::Poll,
    }
}

/// The timeout that was asked for, or one that the interval fits into.
fn timeout(
    options: &mut Options<'_>,
    overrides: &BTreeMap<String, Secret>,
    boundary: Boundary,
) -> Option<Duration> {
    let least = match boundary {
        Boundary::Interval(interval) => interval + COMMIT_TIME,
        Boundary::Poll | Boundary::Connector => Duration::ZERO,
    };
    let Some(text) = overrides.get(TIMEOUT).map(Secret::expose) else {
        return Some(least.max(TIMEOUT_DEFAULT));
    };
    match text.trim().parse().map(Duration::from_millis) {
        Ok(timeout) if timeout > least.saturating_sub(COMMIT_TIME) && !timeout.is_zero() => {
            Some(timeout)
        }
        _ => {
            let option = format!("producer.override.{TIMEOUT}");
            let message = format!(
                "it is a number of milliseconds, greater than {INTERVAL} where that boundary is \
                 asked for: Kafka gives up a transaction that takes longer"
            );
            options.refuse(&option, Some(text.to_owned()), message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(
        given: &[(&str, &str)],
        of_worker: &[(&str, &str)],
    ) -> Result<Option<Transactions>, Vec<String>> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let properties: BTreeMap<String, String> = given.iter().map(owned).collect();
        let worker = WorkerConfig {
            group_id: "group".to_owned(),
            offset_flush_interval: Duration::from_secs(60),
            properties: of_worker.iter().map(owned).collect(),
            ..WorkerConfig::default()
        };
        let mut options = Options::new(&properties);
        let overrides = options.with_prefix("producer.override.").into_iter();
        let overrides = overrides.map(|(name, value)| (name, Secret::new(value))).collect();
        let read = super::read(&mut options, &worker, "outbox", "dbserver1", &overrides);
        match options.finish() {
            Ok(_) => Ok(read),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    const REQUIRED: (&str, &str) = (SUPPORT, "required");

    #[test]
    fn exactly_once_is_for_those_who_require_it_unless_the_worker_says_otherwise() {
        assert_eq!(read_with(&[], &[]), Ok(None));
        assert_eq!(read_with(&[(SUPPORT, "requested")], &[]), Ok(None));
        let required = read_with(&[REQUIRED], &[]).unwrap().unwrap();
        assert_eq!(required.boundary, Boundary::Poll);
        assert_eq!(required.transactional_id, "group-outbox-0");
        assert_eq!(required.offset_key, r#"["outbox",{"server":"dbserver1"}]"#);
        let enabled = [(WORKER_SUPPORT, "ENABLED")];
        assert_eq!(read_with(&[], &enabled), Ok(Some(required.clone())));
        for word in ["disabled", "preparing"] {
            assert_eq!(read_with(&[], &[(WORKER_SUPPORT, word)]), Ok(None));
            let refused = read_with(&[REQUIRED], &[(WORKER_SUPPORT, word)]);
            assert_eq!(refused, Err(vec![SUPPORT.to_owned()]));
        }
        assert!(read_with(&[], &[(WORKER_SUPPORT, "yes")]).is_err());
        assert!(read_with(&[(SUPPORT, "please")], &[]).is_err());
    }

    #[test]
    fn the_boundary_of_transactions_is_read() {
        let boundary = |given: &[(&str, &str)]| {
            let all: Vec<_> = [REQUIRED].iter().chain(given).copied().collect();
            read_with(&all, &[]).map(|read| read.map(|read| read.boundary))
        };
        assert_eq!(boundary(&[(BOUNDARY, "connector")]), Ok(Some(Boundary::Connector)));
        let interval = |millis| Ok(Some(Boundary::Interval(Duration::from_millis(millis))));
        assert_eq!(boundary(&[(BOUNDARY, "INTERVAL")]), interval(60_000));
        assert_eq!(boundary(&[(BOUNDARY, "interval"), (INTERVAL, "250")]), interval(250));
        for wrong in [(BOUNDARY, "row"), (INTERVAL, "0"), (INTERVAL, "soon")] {
            assert_eq!(boundary(&[wrong]), Err(vec![wrong.0.to_owned()]));
        }
        // Without transactions a boundary means nothing; whole transactions would be expected.
        let refused = read_with(&[(BOUNDARY, "connector")], &[]);
        assert_eq!(refused, Err(vec![BOUNDARY.to_owned()]));
        assert_eq!(read_with(&[(BOUNDARY, "interval"), (INTERVAL, "5")], &[]), Ok(None));
    }

    #[test]
    fn a_transaction_may_be_open_for_longer_than_its_interval() {
        let timeout = |given: &[(&str, &str)]| {
            let all: Vec<_> = [REQUIRED].iter().chain(given).copied().collect();
            read_with(&all, &[]).map(|read| read.map(|read| read.timeout.as_secs()))
        };
        let of_producer = "producer.override.transaction.timeout.ms";
        assert_eq!(timeout(&[]), Ok(Some(60)));
        assert_eq!(timeout(&[(BOUNDARY, "interval")]), Ok(Some(90)));
        assert_eq!(timeout(&[(of_producer, "5000")]), Ok(Some(5)));
        let too_short = [(BOUNDARY, "interval"), (of_producer, "60000")];
        assert_eq!(timeout(&too_short), Err(vec![of_producer.to_owned()]));
    }
}
