//! The connector's options that decide how values are written.

use std::collections::BTreeMap;

use event_router::naming::NameAdjustment;

use super::filter::ColumnFilter;
use crate::connector_config::OptionError;

/// `decimal.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecimalMode {
    /// Connect's `Decimal`.
    #[default]
    Precise,
    /// 64 bit floating point.
    Double,
    /// Text.
    String,
}

/// `time.precision.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimePrecisionMode {
    /// The unit follows the column's precision.
    #[default]
    Adaptive,
    /// As adaptive, times of day always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Connect's logical types, in milliseconds.
    Connect,
    /// ISO 8601 text.
    IsoString,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

/// `binary.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BinaryMode {
    /// Bytes.
    #[default]
    Bytes,
    /// Base64 text.
    Base64,
    /// Base64 text with the alphabet for URLs.
    Base64UrlSafe,
    /// Hexadecimal text.
    Hex,
}

/// `hstore.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HstoreMode {
    /// JSON text.
    #[default]
    Json,
    /// A map.
    Map,
}

/// `interval.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IntervalMode {
    /// Microseconds, with an average month.
    #[default]
    Numeric,
    /// ISO 8601 text.
    String,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct ValueModes {
    /// `decimal.handling.mode`.
    pub decimal: DecimalMode,
    /// `time.precision.mode`.
    pub time_precision: TimePrecisionMode,
    /// `binary.handling.mode`.
    pub binary: BinaryMode,
    /// `hstore.handling.mode`.
    pub hstore: HstoreMode,
    /// `interval.handling.mode`.
    pub interval: IntervalMode,
    /// `money.fraction.digits`.
    pub money_fraction_digits: i32,
    /// `include.unknown.datatypes`: types without a rule are passed on as bytes instead of being left out.
    pub include_unknown: bool,
    /// `unavailable.value.placeholder`, for what PostgreSQL does not send because it did not change.
    pub placeholder: String,
    /// `schema.name.adjustment.mode`.
    pub schema_names: NameAdjustment,
    /// `field.name.adjustment.mode`.
    pub field_names: NameAdjustment,
    /// `topic.delimiter`.
    pub topic_delimiter: String,
    /// `column.*` options.
    pub(super) filter: ColumnFilter,
}

/// Debezium's placeholder.
const PLACEHOLDER_DEFAULT: &str = "__debezium_unavailable_value";

impl Default for ValueModes {
    fn default() -> Self {
        Self {
            decimal: DecimalMode::default(),
            time_precision: TimePrecisionMode::default(),
            binary: BinaryMode::default(),
            hstore: HstoreMode::default(),
            interval: IntervalMode::default(),
            money_fraction_digits: 2,
            include_unknown: false,
            placeholder: PLACEHOLDER_DEFAULT.to_owned(),
            schema_names: NameAdjustment::default(),
            field_names: NameAdjustment::default(),
            topic_delimiter: ".".to_owned(),
            filter: ColumnFilter::default(),
        }
    }
}

impl ValueModes {
    /// Reads the options of a connector.
    ///
    /// # Errors
    /// Every option that cannot be taken.
    pub fn parse(properties: &BTreeMap<String, String>) -> Result<Self, Vec<OptionError>> {
        let mut reader = Reader { properties, problems: Vec::new() };
        let defaults = Self::default();
        let modes = Self {
            decimal: reader.choice(
                "decimal.handling.mode",
                &[
                    ("precise", DecimalMode::Precise),
                    ("double", DecimalMode::Double),
                    ("string", DecimalMode::String),
                ],
            ),
            time_precision: reader.choice(
                "time.precision.mode",
                &[
                    ("adaptive", TimePrecisionMode::Adaptive),
                    ("adaptive_time_microseconds", TimePrecisionMode::AdaptiveTimeMicroseconds),
                    ("connect", TimePrecisionMode::Connect),
                    ("isostring", TimePrecisionMode::IsoString),
                    ("microseconds", TimePrecisionMode::Microseconds),
                    ("nanoseconds", TimePrecisionMode::Nanoseconds),
                ],
            ),
            binary: reader.choice(
                "binary.handling.mode",
                &[
                    ("bytes", BinaryMode::Bytes),
                    ("base64", BinaryMode::Base64),
                    ("base64-url-safe", BinaryMode::Base64UrlSafe),
                    ("hex", BinaryMode::Hex),
                ],
            ),
            hstore: reader.choice(
                "hstore.handling.mode",
                &[("json", HstoreMode::Json), ("map", HstoreMode::Map)],
            ),
            interval: reader.choice(
                "interval.handling.mode",
                &[("numeric", IntervalMode::Numeric), ("string", IntervalMode::String)],
            ),
            money_fraction_digits: reader
                .number("money.fraction.digits", defaults.money_fraction_digits),
            include_unknown: reader
                .choice("include.unknown.datatypes", &[("false", false), ("true", true)]),
            placeholder: reader.placeholder(defaults.placeholder),
            schema_names: reader.adjustment("schema.name.adjustment.mode"),
            field_names: reader.adjustment("field.name.adjustment.mode"),
            topic_delimiter: reader
                .text("topic.delimiter")
                .map_or(defaults.topic_delimiter, str::to_owned),
            filter: match ColumnFilter::parse(properties) {
                Ok(filter) => filter,
                Err(problems) => {
                    reader.problems.extend(problems);
                    ColumnFilter::default()
                }
            },
        };
        if reader.problems.is_empty() { Ok(modes) } else { Err(reader.problems) }
    }
}

struct Reader<'p> {
    properties: &'p BTreeMap<String, String>,
    problems: Vec<OptionError>,
}

impl<'p> Reader<'p> {
    fn text(&self, option: &str) -> Option<&'p str> {
        self.properties.get(option).map(String::as_str)
    }

    fn refuse(&mut self, option: &str, value: &str, message: String) {
        self.problems.push(OptionError {
            option: option.to_owned(),
            value: Some(value.to_owned()),
            message,
        });
    }

    /// One of several words; the first is the default.
    fn choice<T: Copy>(&mut self, option: &str, choices: &[(&str, T)]) -> T {
        let Some(given) = self.text(option) else { return choices[0].1 };
        let word = given.trim().to_ascii_lowercase();
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.refuse(option, given, format!("Value must be one of {}", names.join(", ")));
        choices[0].1
    }

    fn number(&mut self, option: &str, default: i32) -> i32 {
        let Some(given) = self.text(option) else { return default };
        given.trim().parse().unwrap_or_else(|_| {
            self.refuse(option, given, "An integer is expected".to_owned());
            default
        })
    }

    fn adjustment(&mut self, option: &str) -> NameAdjustment {
        let Some(given) = self.text(option) else { return NameAdjustment::None };
        match NameAdjustment::parse(given) {
            Some(adjustment) => adjustment,
            None => {
                self.refuse(
                    option,
                    given,
                    "Value must be one of none, avro, avro_unicode".to_owned(),
                );
                NameAdjustment::None
            }
        }
    }

    /// The placeholder, which may be given in hexadecimal behind `hex:`.
    fn placeholder(&mut self, default: String) -> String {
        const OPTION: &str = "unavailable.value.placeholder";
        let Some(given) = self.text(OPTION) else { return default };
        let Some(digits) = given.strip_prefix("hex:") else { return given.to_owned() };
        let bytes = super::value::from_hex(digits);
        match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => text,
            None => {
                self.refuse(OPTION, given, "hexadecimal UTF-8 is expected behind hex:".to_owned());
                default
            }
        }
    }
}
