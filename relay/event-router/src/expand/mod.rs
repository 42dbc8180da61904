//! `table.expand.json.payload`: JSON text as a struct with an inferred schema, by Debezium's rules and Jackson's.

mod direct;
mod fill;
mod infer;
mod parse;
mod tree;

use std::sync::Arc;

use crate::data::{Schema, Value};
use crate::naming::NameAdjustment;

pub use direct::write_directly;

/// `table.json.payload.null.behavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NullBehavior {
    /// Fields that are null are left out.
    #[default]
    Ignore,
    /// Fields that are null stay, as optional bytes.
    OptionalBytes,
}

/// `table.json.payload.empty.array.behavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmptyArrayBehavior {
    /// Fields that are empty arrays are left out.
    #[default]
    Ignore,
    /// They stay, as arrays of optional strings.
    OptionalString,
}

/// How payloads are expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expansion {
    /// What becomes of nulls.
    pub nulls: NullBehavior,
    /// What becomes of empty arrays.
    pub empty_arrays: EmptyArrayBehavior,
    /// How field names are adjusted. A field whose name changes loses its value, as in Debezium.
    pub names: NameAdjustment,
}

/// An expanded payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Expanded {
    /// The inferred schema.
    pub schema: Arc<Schema>,
    /// The struct.
    pub value: Value<'static>,
}

/// Why a payload was not expanded.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpandError {
    /// It is no JSON object, or no schema fits it: text and schema stay as they are.
    Unchanged(String),
    /// A schema was inferred that the value then did not fit. Debezium has replaced the schema by then, but not the
    /// value, which most converters refuse.
    SchemaReplaced(Option<Arc<Schema>>, String),
}

impl ExpandError {
    /// What went wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Unchanged(reason) | Self::SchemaReplaced(_, reason) => reason,
        }
    }
}

impl Expansion {
    /// Expands JSON text; `column` names the schemas.
    ///
    /// # Errors
    /// When it cannot be expanded; see [`ExpandError`].
    pub fn expand(&self, column: &str, text: &str) -> Result<Expanded, ExpandError> {
        self.expand_as(Some(column), text)
    }

    /// The same; without a name the schemas have none.
    pub(crate) fn expand_as(
        &self,
        name: Option<&str>,
        text: &str,
    ) -> Result<Expanded, ExpandError> {
        if !text.starts_with(['{', '[']) {
            let reason = "it does not start with { or [".to_owned();
            return Err(ExpandError::Unchanged(reason));
        }
        let document =
            parse::parse(text).map_err(|error| ExpandError::Unchanged(error.to_string()))?;
        let schema = infer::schema(self, name, &document).map_err(ExpandError::Unchanged)?;
        let Some(schema) = schema else {
            // An empty array at the top has no schema at all.
            return Err(ExpandError::SchemaReplaced(None, "it is an empty array".to_owned()));
        };
        match fill::structure(&document, &schema) {
            Ok(value) => Ok(Expanded { schema, value }),
            Err(error) => Err(ExpandError::SchemaReplaced(Some(schema), error.0)),
        }
    }
}

#[cfg(test)]
mod tests;
