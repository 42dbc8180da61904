//! The short way: from payload text to the text that `JsonConverter` without schemas writes, without a schema.
//!
//! It takes only documents for which the long way (infer a schema, fill a struct, convert it) provably gives the
//! same: no repeated names, arrays of one kind, objects of an array alike. For all others it gives up and the long
//! way decides. A property test holds the two together.

use super::parse::{Number, PlainNumber, Scanner, Text};
use super::{EmptyArrayBehavior, Expansion, NullBehavior};
use crate::json_text::{write_double, write_integer, write_string, write_utf16};
use crate::naming::NameAdjustment;

/// Deepest nesting of the short way; deeper documents take the long one.
const DEPTH_MAX: usize = 32;

/// Most members of an object of the short way: names are compared with each other.
const MEMBERS_MAX: usize = 24;

/// Longest name of the short way in bytes; Jackson has a limit, too.
const NAME_BYTES_MAX: usize = 1000;

/// Names and bytes that an order needs, so that they are not moved while they become more.
const NAMES_USUAL: usize = 32;
const FINGERPRINT_USUAL: usize = 256;

/// Appends the expanded JSON; false (and nothing appended) where the long way must decide.
#[must_use]
pub fn write_directly(expansion: &Expansion, text: &str, out: &mut Vec<u8>) -> bool {
    if expansion.names != NameAdjustment::None
        || expansion.nulls != NullBehavior::Ignore
        || expansion.empty_arrays != EmptyArrayBehavior::Ignore
        || !text.starts_with('{')
    {
        return false;
    }
    let start = out.len();
    out.reserve(text.len());
    let mut writer = Writer {
        scanner: Scanner::new(text),
        out,
        names: Vec::with_capacity(NAMES_USUAL),
        fingerprint: Vec::new(),
        arrays: 0,
    };
    let written = writer.value(0).is_some();
    if !written {
        out.truncate(start);
    }
    written
}

/// The text that Java would print for a number with a point, where it can be told from the number's own text: a plain
/// decimal below ten million with digits that a 64 bit number holds exactly enough to print them again.
fn shortest<'t>(number: &PlainNumber<'t>) -> Option<&'t str> {
    /// Digits (and a point) that survive the way to a 64 bit floating point number and back.
    const LENGTH_MAX: usize = 15;
    /// From 10^7 on Java prints an exponent.
    const WHOLE_DIGITS_MAX: usize = 7;
    let text = number.text;
    let digits = text.len() - usize::from(text.starts_with('-'));
    if number.whole > WHOLE_DIGITS_MAX || digits > LENGTH_MAX {
        return None;
    }
    let fraction = digits - number.whole - 1;
    let zeros = text.bytes().rev().take_while(|digit| *digit == b'0').count();
    text.get(..text.len() - zeros.min(fraction - 1))
}

/// What a value is; objects and arrays are told apart further by the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// An empty array: its member is left out.
    LeftOut,
    Null,
    Boolean,
    Int,
    Long,
    Double,
    String,
    Array,
    Object,
}

struct Writer<'t, 'o> {
    scanner: Scanner<'t>,
    out: &'o mut Vec<u8>,
    /// Names of the members of the objects around, with their quotes, the innermost last.
    names: Vec<&'t str>,
    /// The schema of the elements of the arrays around, in a form that can be compared.
    fingerprint: Vec<u8>,
    /// Arrays around; outside of them no fingerprint is needed.
    arrays: usize,
}

impl Writer<'_, '_> {
    /// Writes a value; none: give up.
    fn value(&mut self, depth: usize) -> Option<Shape> {
        let shape = match self.scanner.peek()? {
            b'{' => return self.object(depth + 1),
            b'[' => return self.array(depth + 1),
            b'"' => self.string()?,
            b't' => self.word("true", Shape::Boolean)?,
            b'f' => self.word("false", Shape::Boolean)?,
            b'n' => self.word("null", Shape::Null)?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return None,
        };
        self.note(shape as u8);
        Some(shape)
    }

    fn string(&mut self) -> Option<Shape> {
        match self.scanner.plain_string() {
            Some(quoted) => self.out.extend_from_slice(quoted.as_bytes()),
            None => match self.scanner.string().ok()? {
                Text::Unicode(text) => write_string(&text, self.out),
                Text::Utf16(units) => write_utf16(&units, self.out),
            },
        }
        Some(Shape::String)
    }

    fn number(&mut self) -> Option<Shape> {
        let start = self.scanner.position();
        if let Some(number) = self.scanner.plain_number() {
            if number.is_whole {
                self.out.extend_from_slice(number.text.as_bytes());
                return Some(Shape::Int);
            }
            if let Some(text) = shortest(&number) {
                self.out.extend_from_slice(text.as_bytes());
                return Some(Shape::Double);
            }
            self.scanner.go_back(start);
        }
        Some(match self.scanner.number().ok()? {
            Number::Int(value) => {
                write_integer(i64::from(value), self.out);
                Shape::Int
            }
            Number::Long(value) => {
                write_integer(value, self.out);
                Shape::Long
            }
            Number::Double(text) => {
                write_double(self.scanner.double(text).ok()?, self.out);
                Shape::Double
            }
            Number::BigInteger(_) => return None,
        })
    }

    fn word(&mut self, word: &'static str, shape: Shape) -> Option<Shape> {
        self.scanner.word(word).ok()?;
        self.out.extend_from_slice(word.as_bytes());
        Some(shape)
    }

    fn note(&mut self, byte: u8) {
        if self.arrays > 0 {
            self.fingerprint.push(byte);
        }
    }

    fn object(&mut self, depth: usize) -> Option<Shape> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.scanner.enter(depth).ok()?;
        self.note(b'{');
        self.out.push(b'{');
        let first_name = self.names.len();
        if !self.scanner.accept(b'}') {
            loop {
                self.member(depth, first_name)?;
                if self.scanner.accept(b'}') {
                    break;
                }
                if !self.scanner.accept(b',') {
                    return None;
                }
            }
        }
        self.names.truncate(first_name);
        self.note(b'}');
        self.out.push(b'}');
        Some(Shape::Object)
    }

    fn member(&mut self, depth: usize, first_name: usize) -> Option<()> {
        let (written, fingerprinted) = (self.out.len(), self.fingerprint.len());
        // A name with an escape is rare enough for the long way.
        let name = (self.scanner.peek()? == b'"').then(|| self.scanner.plain_string())??;
        let siblings = self.names.get(first_name..)?;
        let is_usual = (1..=NAME_BYTES_MAX).contains(&(name.len() - 2));
        if !is_usual || siblings.len() == MEMBERS_MAX || siblings.contains(&name) {
            return None;
        }
        if !self.scanner.accept(b':') {
            return None;
        }
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b':');
        if self.arrays > 0 {
            // Its quotes keep a name apart from what stands around it.
            self.fingerprint.extend_from_slice(name.as_bytes());
        }
        self.names.push(name);
        if matches!(self.value(depth)?, Shape::Null | Shape::LeftOut) {
            self.out.truncate(written);
            self.fingerprint.truncate(fingerprinted);
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<Shape> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.scanner.enter(depth).ok()?;
        self.out.push(b'[');
        if self.scanner.accept(b']') {
            self.out.push(b']');
            return Some(Shape::LeftOut);
        }
        if self.arrays == 0 {
            self.fingerprint.reserve(FINGERPRINT_USUAL);
        }
        self.arrays += 1;
        let start = self.fingerprint.len();
        // Where the fingerprint of the first element that is not null ends.
        let mut first_end = None;
        loop {
            let element = self.fingerprint.len();
            match self.value(depth)? {
                // An empty array has no type of its own.
                Shape::LeftOut => return None,
                Shape::Null => self.fingerprint.truncate(element),
                _ => match first_end {
                    None => first_end = Some(self.fingerprint.len()),
                    Some(end) => {
                        if self.fingerprint.get(start..end) != self.fingerprint.get(element..) {
                            return None;
                        }
                        self.fingerprint.truncate(element);
                    }
                },
            }
            if self.scanner.accept(b']') {
                break;
            }
            if !self.scanner.accept(b',') {
                return None;
            }
            self.out.push(b',');
        }
        // Nulls alone have no type.
        first_end?;
        self.arrays -= 1;
        if self.arrays == 0 {
            self.fingerprint.clear();
        } else {
            self.fingerprint.push(b']');
        }
        self.out.push(b']');
        Some(Shape::Array)
    }
}
