//! The content of logical decoding messages: bytes, written as the connector writes all bytes.

use std::borrow::Cow;

use event_router::data::{Schema, Value};

use super::modes::ValueModes;
use super::schema::binary;
use super::value::Converter;

impl ValueModes {
    /// Schema of a message's content.
    #[must_use]
    pub const fn content_schema(&self) -> Schema {
        binary(self.binary)
    }

    /// A message's content.
    #[must_use]
    pub fn content<'r>(&self, content: &'r [u8]) -> Value<'r> {
        Converter { modes: self }.binary(Cow::Borrowed(content))
    }
}
