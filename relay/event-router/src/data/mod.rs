//! Kafka Connect's data model: schemas, values, structs, and how Java prints them.

mod decimal;
mod java_text;
mod schema;
mod structure;
mod value;

pub use decimal::Decimal;
pub use java_text::{double_to_java, float_to_java};
pub use schema::{Field, Schema, Type, logical};
pub use structure::{DataError, Struct};
pub use value::Value;

#[cfg(test)]
mod tests;
