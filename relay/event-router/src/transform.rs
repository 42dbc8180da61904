//! Transforms of Connect that may stand around the router, and the predicates that choose records for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::data::{Schema, Value};
use crate::event::{Header, RouteError, RoutedEvent};
use crate::java_regex::Regex;
use crate::literal;
use crate::options::InvalidOption;
use crate::topic::TopicRouter;

/// Transform that leaves out every record that its predicate chooses.
pub(crate) const FILTER: &str = "org.apache.kafka.connect.transforms.Filter";

/// Class of the event router.
pub const EVENT_ROUTER: &str = "io.debezium.transforms.outbox.EventRouter";

const REGEX_ROUTER: &str = "org.apache.kafka.connect.transforms.RegexRouter";
const INSERT_HEADER: &str = "org.apache.kafka.connect.transforms.InsertHeader";
const DROP_HEADERS: &str = "org.apache.kafka.connect.transforms.DropHeaders";

const TOPIC_NAME_MATCHES: &str = "org.apache.kafka.connect.transforms.predicates.TopicNameMatches";
const RECORD_IS_TOMBSTONE: &str =
    "org.apache.kafka.connect.transforms.predicates.RecordIsTombstone";
const HAS_HEADER_KEY: &str = "org.apache.kafka.connect.transforms.predicates.HasHeaderKey";

/// A transform other than the router.
#[derive(Debug, Clone)]
pub enum Transform {
    /// Another topic.
    RegexRouter(TopicRouter),
    /// One more header.
    InsertHeader {
        /// Its name.
        name: String,
        /// Its schema and value.
        literal: (Option<Arc<Schema>>, Value<'static>),
    },
    /// Without some headers.
    DropHeaders(Vec<String>),
}

/// Which records a transform applies to.
#[derive(Debug, Clone)]
pub enum Predicate {
    /// Those of topics whose whole name matches.
    TopicNameMatches(Regex),
    /// Those without a value.
    RecordIsTombstone,
    /// Those with a header.
    HasHeaderKey(String),
}

impl Transform {
    /// Reads a transform; `properties` are its options without prefix. None for classes that are not supported.
    ///
    /// # Errors
    /// Every option that cannot be taken.
    pub fn parse(
        class: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, Vec<InvalidOption>> {
        let needed =
            |option: &str| properties.get(option).cloned().ok_or_else(|| vec![missing(option)]);
        Ok(Some(if is(class, REGEX_ROUTER) {
            let regex = regex("regex", &needed("regex")?)?;
            Self::RegexRouter(TopicRouter::new(regex, &needed("replacement")?))
        } else if is(class, INSERT_HEADER) {
            Self::InsertHeader {
                name: needed("header")?,
                literal: literal::read(&needed("value.literal")?),
            }
        } else if is(class, DROP_HEADERS) {
            let names = needed("headers")?;
            Self::DropHeaders(names.split(',').map(|name| name.trim().to_owned()).collect())
        } else {
            return Ok(None);
        }))
    }

    /// Applies the transform.
    ///
    /// # Errors
    /// When a replacement names a group that its expression does not have.
    pub fn apply(&mut self, event: &mut RoutedEvent<'_>) -> Result<(), RouteError> {
        match self {
            Self::RegexRouter(router) => event.topic = router.topic(&event.topic)?,
            Self::InsertHeader { name, literal: (schema, value) } => event.headers.push(Header {
                name: name.clone().into(),
                schema: schema.clone(),
                value: value.clone(),
            }),
            Self::DropHeaders(names) => {
                event.headers.retain(|header| !names.iter().any(|name| *name == header.name));
            }
        }
        Ok(())
    }
}

impl Predicate {
    /// Reads a predicate; `properties` are its options without prefix. None for classes that are not supported.
    ///
    /// # Errors
    /// Every option that cannot be taken.
    pub fn parse(
        class: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, Vec<InvalidOption>> {
        let needed =
            |option: &str| properties.get(option).cloned().ok_or_else(|| vec![missing(option)]);
        Ok(Some(if is(class, TOPIC_NAME_MATCHES) {
            Self::TopicNameMatches(regex("pattern", &needed("pattern")?)?)
        } else if is(class, RECORD_IS_TOMBSTONE) {
            Self::RecordIsTombstone
        } else if is(class, HAS_HEADER_KEY) {
            Self::HasHeaderKey(needed("name")?)
        } else {
            return Ok(None);
        }))
    }

    /// Whether a record is chosen, told by what is known of it before its value is made.
    ///
    /// # Errors
    /// When the expression takes too many steps.
    pub fn test(
        &self,
        topic: &str,
        is_tombstone: bool,
        headers: &[Header<'_>],
    ) -> Result<bool, RouteError> {
        match self {
            Self::TopicNameMatches(pattern) => {
                pattern.matches(topic).map_err(|_| RouteError::RegexTooSlow)
            }
            Self::RecordIsTombstone => Ok(is_tombstone),
            Self::HasHeaderKey(name) => Ok(headers.iter().any(|header| header.name == *name)),
        }
    }
}

/// A class by its full or simple name.
pub(crate) fn is(class: &str, full: &str) -> bool {
    class == full || full.rsplit('.').next() == Some(class)
}

fn missing(option: &str) -> InvalidOption {
    let message =
        format!("Missing required configuration \"{option}\" which has no default value.");
    InvalidOption { option: option.to_owned(), value: None, message }
}

fn regex(option: &str, expression: &str) -> Result<Regex, Vec<InvalidOption>> {
    Regex::new(expression).map_err(|error| {
        vec![InvalidOption {
            option: option.to_owned(),
            value: Some(expression.to_owned()),
            message: format!("Invalid regex: {error}"),
        }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn event() -> RoutedEvent<'static> {
        RoutedEvent {
            topic: "outbox.event.Order".to_owned(),
            partition: None,
            key_schema: None,
            key: Value::Null,
            value_schema: None,
            value: Value::Null,
            headers: vec![Header { name: "id".into(), schema: None, value: Value::Int32(1) }],
            timestamp: None,
        }
    }

    fn transformed(class: &str, options: &[(&str, &str)]) -> RoutedEvent<'static> {
        let mut event = event();
        let transform = Transform::parse(class, &properties(options)).expect("legal options");
        transform.expect("a known class").apply(&mut event).expect("it applies");
        event
    }

    #[test]
    fn topics_are_renamed_and_headers_come_and_go() {
        let options = [("regex", "outbox\\.event\\.(.*)"), ("replacement", "$1-v2")];
        assert_eq!(transformed(REGEX_ROUTER, &options).topic, "Order-v2");
        let inserted =
            transformed("InsertHeader", &[("header", "source"), ("value.literal", "relay")]);
        assert_eq!(inserted.headers[1].value, Value::text("relay"));
        assert!(transformed(DROP_HEADERS, &[("headers", "a, id")]).headers.is_empty());
    }

    #[test]
    fn what_is_missing_or_unknown_is_told_apart() {
        assert!(Transform::parse(INSERT_HEADER, &BTreeMap::new()).is_err());
        assert!(matches!(Transform::parse("com.example.Own", &BTreeMap::new()), Ok(None)));
        assert!(Predicate::parse(TOPIC_NAME_MATCHES, &properties(&[("pattern", "(")])).is_err());
    }

    #[test]
    fn predicates_look_at_topic_value_and_headers() {
        let matches = |class: &str, options: &[(&str, &str)], topic: &str| {
            let predicate = Predicate::parse(class, &properties(options)).expect("legal options");
            predicate
                .expect("a known class")
                .test(topic, false, &event().headers)
                .expect("few steps")
        };
        assert!(matches(
            TOPIC_NAME_MATCHES,
            &[("pattern", "golden\\.public\\.outbox")],
            "golden.public.outbox"
        ));
        assert!(!matches(TOPIC_NAME_MATCHES, &[("pattern", "outbox")], "golden.public.outbox"));
        assert!(!matches(RECORD_IS_TOMBSTONE, &[], "t"));
        assert!(matches(HAS_HEADER_KEY, &[("name", "id")], "t"));
    }
}
