//! Reads a converter's options, from the connector or from the worker.

use std::collections::BTreeMap;

use super::bytes::BinaryConverter;
use super::json::{DecimalFormat, JsonConverter};
use super::number::NumberKind;
use super::{Converter, ConverterClass};
use crate::connector_config::OptionError;

/// Option of the converter that `BinaryDataConverter` hands over to.
const DELEGATE: &str = "delegate.converter.type";

/// Where options come from.
pub(super) struct Source<'p> {
    pub(super) connector: &'p BTreeMap<String, String>,
    pub(super) worker: &'p BTreeMap<String, String>,
}

impl Source<'_> {
    /// The converter that an option names.
    pub(super) fn converter(
        &self,
        option: &str,
        default: Option<&str>,
    ) -> Result<Converter, Vec<OptionError>> {
        let options =
            if self.connector.contains_key(option) { self.connector } else { self.worker };
        let reader = Reader { options, prefix: option.to_owned() };
        match options.get(option).map(String::as_str).or(default) {
            Some(class) => reader.build(class.trim()),
            None => Err(vec![OptionError {
                option: option.to_owned(),
                value: None,
                message: format!(
                    "no {option} is set, neither for the connector nor for the worker; set it, for example to \
                     org.apache.kafka.connect.storage.StringConverter"
                ),
            }]),
        }
    }
}

/// Reads the options behind a prefix.
struct Reader<'p> {
    options: &'p BTreeMap<String, String>,
    prefix: String,
}

impl Reader<'_> {
    fn build(&self, class: &str) -> Result<Converter, Vec<OptionError>> {
        let Some(known) = ConverterClass::find(class) else {
            let supported: Vec<_> = ConverterClass::names().collect();
            return Err(vec![OptionError {
                option: self.prefix.clone(),
                value: Some(class.to_owned()),
                message: format!(
                    "Invalid value {class} for configuration {}: Class {class} could not be found. Supported are {}",
                    self.prefix,
                    supported.join(", ")
                ),
            }]);
        };
        Ok(match known {
            ConverterClass::String => {
                self.only_utf8()?;
                Converter::String
            }
            ConverterClass::Json => Converter::Json(Box::new(self.json()?)),
            ConverterClass::ByteArray => Converter::ByteArray,
            ConverterClass::SimpleHeader => Converter::SimpleHeader,
            ConverterClass::Binary => self.binary(true)?,
            ConverterClass::DebeziumByteArray => self.binary(false)?,
            ConverterClass::Boolean => Converter::Number(NumberKind::Boolean),
            ConverterClass::Short => Converter::Number(NumberKind::Short),
            ConverterClass::Integer => Converter::Number(NumberKind::Integer),
            ConverterClass::Long => Converter::Number(NumberKind::Long),
            ConverterClass::Float => Converter::Number(NumberKind::Float),
            ConverterClass::Double => Converter::Number(NumberKind::Double),
        })
    }

    fn binary(&self, takes_buffers: bool) -> Result<Converter, Vec<OptionError>> {
        let delegate_option = format!("{}.{DELEGATE}", self.prefix);
        let delegate = match self.options.get(&delegate_option) {
            None => None,
            Some(class) => {
                let reader = Reader { options: self.options, prefix: delegate_option };
                Some(reader.build(class.trim())?)
            }
        };
        Ok(Converter::Binary(Box::new(BinaryConverter { delegate, takes_buffers })))
    }

    fn json(&self) -> Result<JsonConverter, Vec<OptionError>> {
        let schemas_enabled = self.boolean("schemas.enable", true);
        let replace_null_with_default = self.boolean("replace.null.with.default", true);
        let decimal_format = self.decimal_format();
        match (schemas_enabled, replace_null_with_default, decimal_format) {
            (Ok(schemas), Ok(replace), Ok(decimals)) => {
                Ok(JsonConverter::new(schemas, replace, decimals))
            }
            (schemas, replace, decimals) => {
                Err([schemas.err(), replace.err(), decimals.err()].into_iter().flatten().collect())
            }
        }
    }

    fn option(&self, name: &str) -> (String, Option<&String>) {
        let option = format!("{}.{name}", self.prefix);
        let value = self.options.get(&option);
        (option, value)
    }

    fn boolean(&self, name: &str, default: bool) -> Result<bool, OptionError> {
        let (option, value) = self.option(name);
        let Some(value) = value else { return Ok(default) };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(OptionError {
                message: format!(
                    "Invalid value {value} for configuration {option}: Expected value to be either true or false"
                ),
                option,
                value: Some(value.clone()),
            }),
        }
    }

    fn decimal_format(&self) -> Result<DecimalFormat, OptionError> {
        let (option, value) = self.option("decimal.format");
        let Some(value) = value else { return Ok(DecimalFormat::Base64) };
        match value.trim().to_ascii_uppercase().as_str() {
            "BASE64" => Ok(DecimalFormat::Base64),
            "NUMERIC" => Ok(DecimalFormat::Numeric),
            _ => Err(OptionError {
                message: format!("{option} must be BASE64 or NUMERIC"),
                option,
                value: Some(value.clone()),
            }),
        }
    }

    /// `StringConverter` can write other encodings; records in them would surprise every reader, so only UTF-8 is.
    fn only_utf8(&self) -> Result<(), Vec<OptionError>> {
        for name in ["encoding", "serializer.encoding"] {
            let (option, value) = self.option(name);
            let Some(value) = value else { continue };
            let plain = value.trim().to_ascii_uppercase().replace(['-', '_'], "");
            if plain != "UTF8" {
                return Err(vec![OptionError {
                    message: format!("{option} is {value}, but only UTF-8 is supported"),
                    option,
                    value: Some(value.clone()),
                }]);
            }
        }
        Ok(())
    }
}
