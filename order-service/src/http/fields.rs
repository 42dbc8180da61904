//! Reads the fields of a JSON object one by one and collects what is wrong with each. Pure.
//!
//! serde would stop at the first mistake and name it by line and column. Here every mistake is told at once, by its
//! place in the document and with what to do. Values stay raw text until someone asks for a type, so a price never
//! becomes a float on the way.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::problem::FieldError;

/// Mistakes that are told at once; a document with more has a mistake in the program that wrote it.
const ERRORS_MAX: usize = 20;

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<FieldError>);

impl Mistakes {
    /// Notes that the value at this place must change.
    pub(crate) fn add(&mut self, pointer: &str, detail: String) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(FieldError {
                pointer: Some(format!("#{pointer}")),
                parameter: None,
                detail,
            });
        }
    }

    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }
}

/// A value as it stands in the document.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    /// Not there, or null: the same to us, as it was to the original.
    Missing,
    /// A number's text, digit by digit.
    Number(&'a str),
    Text(String),
    Array(Vec<&'a RawValue>),
    /// Something that no field of ours can be.
    Other,
}

impl<'a> Value<'a> {
    pub(crate) fn of(raw: Option<&'a RawValue>) -> Value<'a> {
        let Some(text) = raw.map(RawValue::get) else { return Value::Missing };
        match text.as_bytes().first() {
            Some(b'n') => Value::Missing,
            Some(b'-' | b'0'..=b'9') => Value::Number(text),
            // An unpaired surrogate is valid JSON and no text.
            Some(b'"') => serde_json::from_str(text).map_or(Value::Other, Value::Text),
            Some(b'[') => serde_json::from_str(text).map_or(Value::Other, Value::Array),
            _ => Value::Other,
        }
    }

    /// The text of a number, whether it came as one or as a string that holds one.
    pub(crate) fn number_text(&self) -> Option<&str> {
        match self {
            Value::Number(text) => Some(text),
            Value::Text(text) => Some(text.trim()),
            _ => None,
        }
    }
}

/// A JSON object, with its place in the document.
pub(crate) struct Object<'a> {
    pointer: String,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Object<'a> {
    /// The object in this text; `None` if it is something else. Of a repeated field the last one counts.
    pub(crate) fn read(pointer: String, raw: &'a RawValue) -> Option<Object<'a>> {
        let fields = serde_json::from_str(raw.get()).ok()?;
        Some(Object { pointer, fields })
    }

    /// The place of a field in the document.
    pub(crate) fn pointer_to(&self, field: &str) -> String {
        // The two characters that a JSON pointer has to escape (RFC 6901), and what a URI fragment cannot hold.
        let token: String = field
            .chars()
            .map(|character| match character {
                '~' => "~0".to_owned(),
                '/' => "~1".to_owned(),
                plain if plain.is_ascii_alphanumeric() || "-._".contains(plain) => {
                    plain.to_string()
                }
                other => {
                    let mut buffer = [0; 4];
                    let bytes = other.encode_utf8(&mut buffer).bytes();
                    bytes.map(|byte| format!("%{byte:02X}")).collect()
                }
            })
            .collect();
        format!("{}/{token}", self.pointer)
    }

    pub(crate) fn value(&self, field: &str) -> Value<'a> {
        Value::of(self.fields.get(field).copied())
    }

    /// Refuses fields that nobody reads: most are misspelt, and the original refused them, too.
    pub(crate) fn refuse_others(&self, known: &[&str], mistakes: &mut Mistakes) {
        for field in self.fields.keys().filter(|field| !known.contains(&field.as_str())) {
            let shown: String = field.chars().take(40).collect();
            mistakes.add(
                &self.pointer_to(&shown),
                format!("{shown} is not a field of this request; known are {}", known.join(", ")),
            );
        }
    }

    /// Reads a field with `read`, which says what is wrong with the value in a sentence without its subject.
    pub(crate) fn required<T>(
        &self,
        field: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let result = match self.value(field) {
            Value::Missing => Err("is missing; it must be there and not null".to_owned()),
            value => read(value),
        };
        result
            .map_err(|detail| mistakes.add(&self.pointer_to(field), format!("{field} {detail}")))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_value_is_known_by_its_first_letter() {
        // Raw values cannot be compared, their debug forms can.
        let check = |text: &str, expected: Value<'_>| {
            assert_eq!(format!("{:?}", Value::of(Some(raw(text)))), format!("{expected:?}"));
        };
        check("null", Value::Missing);
        check("-1.50e3", Value::Number("-1.50e3"));
        check(r#""a\u00e4""#, Value::Text("aä".to_owned()));
        check(r#""\ud800""#, Value::Other);
        check("true", Value::Other);
        check("{}", Value::Other);
        check("[]", Value::Array(Vec::new()));
        assert!(matches!(Value::of(None), Value::Missing));
    }

    #[test]
    fn a_pointer_escapes_what_json_pointers_and_fragments_cannot_hold() {
        let object = Object::read("/lineItems/0".to_owned(), raw("{}")).unwrap();
        assert_eq!(object.pointer_to("item"), "/lineItems/0/item");
        assert_eq!(object.pointer_to("a/b~c d\u{e4}"), "/lineItems/0/a~1b~0c%20d%C3%A4");
    }

    #[test]
    fn a_document_full_of_mistakes_is_told_a_bounded_number_of_them() {
        let mut mistakes = Mistakes::default();
        for index in 0..1000 {
            mistakes.add("/lineItems", format!("mistake {index}"));
        }
        assert_eq!(mistakes.into_errors().len(), ERRORS_MAX);
    }
}
