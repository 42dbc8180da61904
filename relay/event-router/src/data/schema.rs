//! The schema of a value, as Connect describes it.

use std::sync::Arc;

use super::Value;

/// Names of Connect's own logical types.
pub mod logical {
    /// `BigDecimal` in bytes; parameter `scale`.
    pub const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
    /// Days since 1970 as `java.util.Date`.
    pub const DATE: &str = "org.apache.kafka.connect.data.Date";
    /// Milliseconds of the day as `java.util.Date`.
    pub const TIME: &str = "org.apache.kafka.connect.data.Time";
    /// Milliseconds since 1970 as `java.util.Date`.
    pub const TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";
}

/// The kinds of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// 8 bit integer.
    Int8,
    /// 16 bit integer.
    Int16,
    /// 32 bit integer.
    Int32,
    /// 64 bit integer.
    Int64,
    /// 32 bit floating point number.
    Float32,
    /// 64 bit floating point number.
    Float64,
    /// True or false.
    Boolean,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// List of values of one schema.
    Array,
    /// Keys and values of one schema each.
    Map,
    /// Named fields.
    Struct,
}

impl Type {
    /// Java's name of the kind, as error messages show it.
    #[must_use]
    pub const fn java_name(self) -> &'static str {
        match self {
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Float32 => "FLOAT32",
            Self::Float64 => "FLOAT64",
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Array => "ARRAY",
            Self::Map => "MAP",
            Self::Struct => "STRUCT",
        }
    }
}

/// A field of a struct schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Name, unique within the struct.
    pub name: String,
    /// Schema of the field's value.
    pub schema: Arc<Schema>,
}

/// A schema. Equality is Connect's: everything counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The kind of value.
    pub kind: Type,
    /// Whether null is allowed.
    pub optional: bool,
    /// Name of a struct or of a logical type.
    pub name: Option<String>,
    /// Version of the named type.
    pub version: Option<i32>,
    /// Documentation, printed by `JsonConverter`.
    pub doc: Option<String>,
    /// Parameters of a logical type, in order.
    pub parameters: Vec<(String, String)>,
    /// What stands for null.
    pub default: Option<Value<'static>>,
    /// Fields of a struct.
    pub fields: Vec<Field>,
    /// Schema of the keys of a map.
    pub keys: Option<Arc<Schema>>,
    /// Schema of the elements of an array or of the values of a map.
    pub values: Option<Arc<Schema>>,
}

impl Schema {
    /// A required schema of a kind, without a name.
    #[must_use]
    pub const fn new(kind: Type) -> Self {
        Self {
            kind,
            optional: false,
            name: None,
            version: None,
            doc: None,
            parameters: Vec::new(),
            default: None,
            fields: Vec::new(),
            keys: None,
            values: None,
        }
    }

    /// An array of elements of one schema.
    #[must_use]
    pub fn array(element: Arc<Self>) -> Self {
        Self { values: Some(element), ..Self::new(Type::Array) }
    }

    /// A map of keys and values of one schema each.
    #[must_use]
    pub fn map(keys: Arc<Self>, values: Arc<Self>) -> Self {
        Self { keys: Some(keys), values: Some(values), ..Self::new(Type::Map) }
    }

    /// A struct of named fields.
    #[must_use]
    pub fn structure(fields: Vec<Field>) -> Self {
        Self { fields, ..Self::new(Type::Struct) }
    }

    /// The same schema with a name and a version.
    #[must_use]
    pub fn named(mut self, name: &str, version: i32) -> Self {
        self.name = Some(name.to_owned());
        self.version = Some(version);
        self
    }

    /// The same schema, null allowed or not.
    #[must_use]
    pub const fn with_optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    /// The same schema with one more parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same schema with one more field.
    #[must_use]
    pub fn with_field(mut self, name: &str, schema: Arc<Self>) -> Self {
        self.fields.push(Field { name: name.to_owned(), schema });
        self
    }

    /// Position of a field of a struct.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// A parameter of a logical type.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
