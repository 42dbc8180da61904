//! `errors.*`: whether a change that cannot be published is left out, kept in a dead letter topic, or stops the task.
//!
//! Names, defaults and meanings are Kafka Connect's, which honours the dead letter topic for sinks alone; the relay
//! honours it for its source.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::Options;

/// Where dead letters go.
pub const TOPIC_OPTION: &str = "errors.deadletterqueue.topic.name";
const REPLICATION_OPTION: &str = "errors.deadletterqueue.topic.replication.factor";
const HEADERS_OPTION: &str = "errors.deadletterqueue.context.headers.enable";
/// What becomes of later events of a dead letter's key.
const PARKED_KEY_OPTION: &str = "relay.errors.parked.key";
/// How many keys may be parked at one time.
pub const PARKED_KEYS_MAX_OPTION: &str = "relay.errors.parked.keys.max";

/// Kafka Connect's default.
const REPLICATION_DEFAULT: u64 = 3;
/// Kafka's limit of a topic's replication factor is a 16-bit number.
const REPLICATION_MAX: u64 = 32_767;
/// A parked key takes some 50 bytes: 100,000 are 5 MB.
const PARKED_KEYS_DEFAULT: u64 = 100_000;
const PARKED_KEYS_MAX: u64 = 10_000_000;
/// Kafka Connect's word for "without end".
const FOREVER: &str = "-1";
const RETRY_DELAY_DEFAULT_MS: u64 = 60_000;
const MILLISECONDS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// What happens to a change that cannot be published.
#[derive(Debug, Clone, Default)]
pub struct ErrorConfig {
    /// `errors.tolerance=all`.
    pub tolerated: bool,
    /// The dead letter topic, where failures are tolerated and one is named.
    pub dead_letters: Option<DeadLetterConfig>,
    /// `errors.retry.timeout`: how long a record that Kafka refuses is tried again; `None`: without end.
    pub retry_timeout: Option<Duration>,
    /// `errors.retry.delay.max.ms`: the longest delay between two attempts.
    pub retry_delay_max: Duration,
    /// `errors.log.enable`: failures are told in Connect's words, at error level.
    pub log: bool,
    /// `errors.log.include.messages`: that line also tells the change: position, operation and all values.
    pub log_messages: bool,
    /// Classes that Connect's log and headers name.
    pub classes: StageClasses,
}

/// A dead letter topic.
#[derive(Debug, Clone)]
pub struct DeadLetterConfig {
    /// Its name.
    pub topic: String,
    /// Replicas of each record where the relay creates it.
    pub replication: i32,
    /// Whether Connect's context headers are written.
    pub context_headers: bool,
    /// `relay.errors.parked.key=park`: later events of a dead letter's key wait behind it.
    pub park_keys: bool,
    /// Parked keys that are remembered; one more stops the task.
    pub parked_keys_max: usize,
}

/// The classes that do the work of each stage, as the connector's options name them.
#[derive(Debug, Clone, Default)]
pub struct StageClasses {
    /// The first transform.
    pub transform: String,
    /// Key, value and header converter.
    pub key: String,
    /// See `key`.
    pub value: String,
    /// See `key`.
    pub header: String,
}

impl ErrorConfig {
    pub(super) fn parse(
        options: &mut Options<'_>,
        worker_converters: &BTreeMap<String, String>,
    ) -> Self {
        let tolerance = [("none", false), ("all", true)];
        let tolerated = options.choice("errors.tolerance", &tolerance, false);
        let dead_letters = DeadLetterConfig::parse(options);
        if dead_letters.is_some() && !tolerated {
            options.remark(format!(
                "option `{TOPIC_OPTION}` has no effect without errors.tolerance=all: the task stops, and nothing is \
                 passed over"
            ));
        }
        Self {
            tolerated,
            dead_letters: dead_letters.filter(|_| tolerated),
            retry_timeout: retry_timeout(options),
            retry_delay_max: options.milliseconds(
                "errors.retry.delay.max.ms",
                RETRY_DELAY_DEFAULT_MS,
                1..=MILLISECONDS_MAX,
            ),
            log: options.flag("errors.log.enable", false),
            log_messages: options.flag("errors.log.include.messages", false),
            classes: options.read_with(|given| StageClasses::of(given, worker_converters)),
        }
    }
}

impl DeadLetterConfig {
    fn parse(options: &mut Options<'_>) -> Option<Self> {
        let topic = options.text(TOPIC_OPTION).filter(|topic| !topic.is_empty());
        let replication =
            options.number(REPLICATION_OPTION, REPLICATION_DEFAULT, 1..=REPLICATION_MAX);
        let context_headers = options.flag(HEADERS_OPTION, false);
        let parked = [("pass", false), ("park", true)];
        let park_keys = options.choice(PARKED_KEY_OPTION, &parked, true);
        let keys_max =
            options.number(PARKED_KEYS_MAX_OPTION, PARKED_KEYS_DEFAULT, 1..=PARKED_KEYS_MAX);
        let topic = topic?;
        if !is_legal_topic(&topic) {
            let message =
                "it is no legal name of a topic: up to 249 of a-z, A-Z, 0-9, '.', '_' and '-'";
            options.refuse(TOPIC_OPTION, Some(topic), message.to_owned());
            return None;
        }
        Some(Self {
            topic,
            replication: i32::try_from(replication).unwrap_or(i32::MAX),
            context_headers,
            park_keys,
            parked_keys_max: usize::try_from(keys_max).unwrap_or(usize::MAX),
        })
    }
}

fn retry_timeout(options: &mut Options<'_>) -> Option<Duration> {
    const OPTION: &str = "errors.retry.timeout";
    if options.text(OPTION).as_deref() == Some(FOREVER) {
        return None;
    }
    Some(options.milliseconds(OPTION, 0, 0..=MILLISECONDS_MAX))
}

/// What Kafka takes for the name of a topic.
#[must_use]
pub fn is_legal_topic(name: &str) -> bool {
    /// Kafka makes folders of the names.
    const LENGTH_MAX: usize = 249;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !matches!(name, "" | "." | "..") && name.len() <= LENGTH_MAX && name.bytes().all(legal)
}

impl StageClasses {
    fn of(given: &BTreeMap<String, String>, worker: &BTreeMap<String, String>) -> Self {
        let class = |option: &str| given.get(option).or_else(|| worker.get(option)).cloned();
        let first = given.get("transforms").and_then(|names| names.split(',').next());
        let transform = first.and_then(|name| class(&format!("transforms.{}.type", name.trim())));
        Self {
            transform: transform.unwrap_or_default(),
            key: class("key.converter").unwrap_or_default(),
            value: class("value.converter").unwrap_or_default(),
            header: class("header.converter").unwrap_or_else(|| {
                "org.apache.kafka.connect.storage.SimpleHeaderConverter".to_owned()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<(ErrorConfig, Vec<String>), Vec<String>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let errors = ErrorConfig::parse(&mut options, &BTreeMap::new());
        match options.finish() {
            Ok(remarks) => Ok((errors, remarks)),
            Err(refused) => Err(refused.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn defaults_are_those_of_kafka_connect() {
        let (errors, remarks) = parse(&[]).unwrap();
        assert!(!errors.tolerated && !errors.log && !errors.log_messages);
        assert!(errors.dead_letters.is_none() && remarks.is_empty());
        assert_eq!(errors.retry_timeout, Some(Duration::ZERO));
        assert_eq!(errors.retry_delay_max, Duration::from_secs(60));
        let named = [("errors.tolerance", "all"), (TOPIC_OPTION, "letters")];
        let letters = parse(&named).unwrap().0.dead_letters.unwrap();
        assert_eq!((letters.replication, letters.context_headers), (3, false));
        // Of the relay: what comes behind a dead letter of its key would be out of order.
        assert!(letters.park_keys);
    }

    #[test]
    fn a_dead_letter_topic_without_tolerance_is_told_to_have_no_effect() {
        let (errors, remarks) = parse(&[(TOPIC_OPTION, "letters")]).unwrap();
        assert!(errors.dead_letters.is_none());
        assert!(remarks[0].contains("errors.tolerance=all"), "{remarks:?}");
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for (option, value) in [
            ("errors.tolerance", "some"),
            (TOPIC_OPTION, "with space"),
            (REPLICATION_OPTION, "0"),
            (PARKED_KEY_OPTION, "wait"),
            ("errors.retry.timeout", "-2"),
            ("errors.retry.delay.max.ms", "soon"),
        ] {
            assert_eq!(parse(&[(option, value)]).unwrap_err(), [option]);
        }
    }

    #[test]
    fn retries_may_go_on_without_end() {
        assert_eq!(parse(&[("errors.retry.timeout", "-1")]).unwrap().0.retry_timeout, None);
    }

    #[test]
    fn names_of_topics_are_checked_as_kafka_does() {
        assert!(is_legal_topic("Order_Events-1.dlq") && is_legal_topic(&"x".repeat(249)));
        for illegal in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(!is_legal_topic(illegal), "{illegal}");
        }
    }
}
