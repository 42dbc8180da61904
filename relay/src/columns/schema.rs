//! Schemas of columns, by Debezium's names.

use std::sync::Arc;

use event_router::data::{Field, Schema, Type, logical};

use super::kind::Kind;
use super::modes::{
    BinaryMode, DecimalMode, HstoreMode, IntervalMode, TimePrecisionMode, ValueModes,
};

/// The schema of a column that must not be null; none for kinds that have none.
pub(super) fn schema_of(kind: &Kind, modes: &ValueModes) -> Option<Schema> {
    Some(match kind {
        Kind::Boolean | Kind::Bit => Schema::new(Type::Boolean),
        Kind::Int16 => Schema::new(Type::Int16),
        Kind::Int32 => Schema::new(Type::Int32),
        Kind::Int64 => Schema::new(Type::Int64),
        Kind::Float32 => Schema::new(Type::Float32),
        Kind::Float64 => Schema::new(Type::Float64),
        Kind::Text | Kind::Name => Schema::new(Type::String),
        Kind::Named(name) => Schema::new(Type::String).named(name, 1),
        Kind::Enum(labels) => enumeration(labels),
        Kind::Bytea | Kind::Opaque => binary(modes.binary),
        Kind::Bits(length) => Schema::new(Type::Bytes)
            .named("io.debezium.data.Bits", 1)
            .with_parameter("length", &length.to_string()),
        Kind::Numeric { precision, scale } => match modes.decimal {
            DecimalMode::Precise => {
                decimal(*scale).with_parameter("connect.decimal.precision", &precision.to_string())
            }
            DecimalMode::Double => Schema::new(Type::Float64),
            DecimalMode::String => Schema::new(Type::String),
        },
        Kind::VariableNumeric => match modes.decimal {
            DecimalMode::Precise => variable_scale_decimal(),
            DecimalMode::Double => Schema::new(Type::Float64),
            DecimalMode::String => Schema::new(Type::String),
        },
        Kind::Money => match modes.decimal {
            DecimalMode::Precise => decimal(modes.money_fraction_digits),
            DecimalMode::Double => Schema::new(Type::Float64),
            DecimalMode::String => Schema::new(Type::String),
        },
        Kind::Date | Kind::Time(_) | Kind::Timestamp(_) => temporal(kind, modes.time_precision),
        Kind::TimeTz => Schema::new(Type::String).named("io.debezium.time.ZonedTime", 1),
        Kind::TimestampTz(_) => {
            Schema::new(Type::String).named("io.debezium.time.ZonedTimestamp", 1)
        }
        Kind::Interval => match modes.interval {
            IntervalMode::Numeric => {
                Schema::new(Type::Int64).named("io.debezium.time.MicroDuration", 1)
            }
            IntervalMode::String => Schema::new(Type::String).named("io.debezium.time.Interval", 1),
        },
        Kind::Hstore => match modes.hstore {
            HstoreMode::Json => Schema::new(Type::String).named("io.debezium.data.Json", 1),
            HstoreMode::Map => {
                let value = Schema::new(Type::String).with_optional(true);
                Schema::map(Arc::new(Schema::new(Type::String)), Arc::new(value))
            }
        },
        Kind::Point => point(),
        Kind::Box | Kind::Segment | Kind::Path | Kind::Polygon => geometry(),
        Kind::Circle => circle(),
        Kind::Line => line(),
        Kind::Array(element) => {
            let is_optional = !element.is_required_in_array();
            Schema::array(Arc::new(schema_of(element, modes)?.with_optional(is_optional)))
        }
        Kind::Valueless(kind) => return schema_of(kind, modes),
    })
}

/// The schema of a key of several columns; none without columns.
pub(super) fn key_schema<'k>(
    name: &str,
    columns: impl Iterator<Item = (&'k str, &'k Arc<Schema>)>,
) -> Option<Arc<Schema>> {
    let fields: Vec<_> = columns
        .map(|(name, schema)| Field { name: name.to_owned(), schema: Arc::clone(schema) })
        .collect();
    if fields.is_empty() {
        return None;
    }
    let mut schema = Schema::structure(fields);
    schema.name = Some(name.to_owned());
    Some(Arc::new(schema))
}

fn enumeration(labels: &[String]) -> Schema {
    Schema::new(Type::String)
        .named("io.debezium.data.Enum", 1)
        .with_parameter("allowed", &labels.join(","))
}

pub(super) const fn binary(mode: BinaryMode) -> Schema {
    match mode {
        BinaryMode::Bytes => Schema::new(Type::Bytes),
        BinaryMode::Base64 | BinaryMode::Base64UrlSafe | BinaryMode::Hex => {
            Schema::new(Type::String)
        }
    }
}

fn decimal(scale: i32) -> Schema {
    Schema::new(Type::Bytes).named(logical::DECIMAL, 1).with_parameter("scale", &scale.to_string())
}

/// A decimal that carries its own scale.
pub(super) fn variable_scale_decimal() -> Schema {
    let mut schema = Schema::new(Type::Struct)
        .named("io.debezium.data.VariableScaleDecimal", 1)
        .with_field("scale", Arc::new(Schema::new(Type::Int32)))
        .with_field("value", Arc::new(Schema::new(Type::Bytes)));
    schema.doc = Some("Variable scaled decimal".to_owned());
    schema
}

/// Dates, times of day and timestamps without a zone.
fn temporal(kind: &Kind, mode: TimePrecisionMode) -> Schema {
    use TimePrecisionMode as Mode;
    let (kind, name) = match (kind, mode) {
        (Kind::Date, Mode::IsoString) => (Type::String, "io.debezium.time.IsoDate"),
        (Kind::Date, Mode::Connect) => (Type::Int32, logical::DATE),
        (Kind::Date, _) => (Type::Int32, "io.debezium.time.Date"),
        (Kind::Time(_), Mode::IsoString) => (Type::String, "io.debezium.time.IsoTime"),
        (Kind::Time(_), Mode::Connect) => (Type::Int32, logical::TIME),
        (Kind::Time(_), Mode::Nanoseconds) => (Type::Int64, "io.debezium.time.NanoTime"),
        (Kind::Time(..=3), Mode::Adaptive) => (Type::Int32, "io.debezium.time.Time"),
        (Kind::Time(_), _) => (Type::Int64, "io.debezium.time.MicroTime"),
        (_, Mode::IsoString) => (Type::String, "io.debezium.time.IsoTimestamp"),
        (_, Mode::Connect) => (Type::Int64, logical::TIMESTAMP),
        (_, Mode::Nanoseconds) => (Type::Int64, "io.debezium.time.NanoTimestamp"),
        (Kind::Timestamp(..=3), Mode::Adaptive | Mode::AdaptiveTimeMicroseconds) => {
            (Type::Int64, "io.debezium.time.Timestamp")
        }
        _ => (Type::Int64, "io.debezium.time.MicroTimestamp"),
    };
    Schema::new(kind).named(name, 1)
}

fn required(kind: Type) -> Arc<Schema> {
    Arc::new(Schema::new(kind))
}

fn optional(kind: Type) -> Arc<Schema> {
    Arc::new(Schema::new(kind).with_optional(true))
}

fn documented(mut schema: Schema, name: &str, version: i32, doc: &str) -> Schema {
    schema.doc = Some(doc.to_owned());
    schema.named(name, version)
}

/// A point, with its coordinates beside the bytes.
pub(super) fn point() -> Schema {
    let schema = Schema::new(Type::Struct)
        .with_field("x", required(Type::Float64))
        .with_field("y", required(Type::Float64))
        .with_field("wkb", optional(Type::Bytes))
        .with_field("srid", optional(Type::Int32));
    documented(schema, "io.debezium.data.geometry.Point", 1, "Geometry (POINT)")
}

/// Any geometry as well-known binary.
pub(super) fn geometry() -> Schema {
    let extensions =
        Schema::map(required(Type::String), required(Type::String)).with_optional(true);
    let schema = Schema::new(Type::Struct)
        .with_field("wkb", required(Type::Bytes))
        .with_field("srid", optional(Type::Int32))
        .with_field("extensions", Arc::new(extensions))
        .with_optional(true);
    documented(schema, "io.debezium.data.geometry.Geometry", 2, "Geometry")
}

/// A circle.
pub(super) fn circle() -> Schema {
    let schema = Schema::new(Type::Struct)
        .with_field("center", Arc::new(point()))
        .with_field("radius", required(Type::Float64))
        .with_optional(true);
    documented(schema, "io.debezium.data.geometry.Circle", 1, "Geometry (CIRCLE)")
}

/// A line, by its coefficients.
pub(super) fn line() -> Schema {
    let schema = Schema::new(Type::Struct)
        .with_field("a", required(Type::Float64))
        .with_field("b", required(Type::Float64))
        .with_field("c", required(Type::Float64))
        .with_optional(true);
    documented(schema, "io.debezium.data.geometry.Line", 1, "Geometry (LINE)")
}
