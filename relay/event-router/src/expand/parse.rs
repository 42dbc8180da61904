//! Reads JSON by Jackson's rules: strict syntax, its limits, and nothing checked behind the first value.

use std::borrow::Cow;
use std::collections::HashMap;

use super::tree::Node;

/// Deepest nesting that Jackson takes.
const DEPTH_MAX: usize = 1000;

/// Longest number that Jackson takes, in digits.
const NUMBER_LENGTH_MAX: usize = 1000;

/// Longest name of a member that Jackson takes, in UTF-16 units.
const NAME_LENGTH_MAX: usize = 50_000;

/// Longest text that Jackson takes, in UTF-16 units.
const TEXT_LENGTH_MAX: usize = 20_000_000;

/// Members from which on names are looked up in a map.
const MEMBERS_SCANNED_MAX: usize = 16;

/// JSON that Jackson refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub(super) struct ParseError {
    reason: &'static str,
    position: usize,
}

/// Reads the first value of a text.
pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
    Scanner::new(text).value(0)
}

/// Text of a JSON string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text<'t> {
    Unicode(Cow<'t, str>),
    Utf16(Vec<u16>),
}

/// A number's form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number<'t> {
    Int(i32),
    Long(i64),
    BigInteger(&'t str),
    /// The text of a number with a point or an exponent; [`Scanner::double`] reads it.
    Double(&'t str),
}

/// A number in its own text, without an exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainNumber<'t> {
    pub(super) text: &'t str,
    /// Digits before the point.
    pub(super) whole: usize,
    /// Without a point; it fits 32 bits.
    pub(super) is_whole: bool,
}

/// So many digits fit 32 bits.
const PLAIN_DIGITS_MAX: usize = 9;

/// What ends a run of a string's bytes that stand for themselves: the quote, an escape, a control character, and what
/// begins a character beyond U+FFFF, which is written as an escape.
const ENDS_RUN: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < ends.len() {
        ends[byte] = byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize || byte >= 0xf0;
        byte += 1;
    }
    ends
};

/// Steps through JSON text.
pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) const fn error(&self, reason: &'static str) -> ParseError {
        ParseError { reason, position: self.at }
    }

    /// The next byte behind white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Takes a byte behind white space, if it is this one.
    pub(super) fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, ParseError> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(match self.string()? {
                Text::Unicode(text) => Node::Text(text.into_owned()),
                Text::Utf16(units) => Node::Utf16(units),
            }),
            Some(b'-' | b'0'..=b'9') => Ok(match self.number()? {
                Number::Int(value) => Node::Int(value),
                Number::Long(value) => Node::Long(value),
                Number::BigInteger(digits) => Node::BigInteger(digits.to_owned()),
                Number::Double(text) => Node::Double(self.double(text)?),
            }),
            Some(b't') => self.word("true").map(|()| Node::Boolean(true)),
            Some(b'f') => self.word("false").map(|()| Node::Boolean(false)),
            Some(b'n') => self.word("null").map(|()| Node::Null),
            Some(_) => Err(self.error("unexpected character")),
            None => Err(self.error("unexpected end")),
        }
    }

    /// Enters an object or array; counts its depth.
    pub(super) fn enter(&mut self, depth: usize) -> Result<(), ParseError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested more than 1000 levels deep"));
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<Node, ParseError> {
        self.enter(depth)?;
        let mut members = Members::default();
        if self.accept(b'}') {
            return Ok(Node::Object(members.list));
        }
        loop {
            let name = self.name()?;
            let value = self.value(depth)?;
            members.put(name.into_owned(), value);
            if self.accept(b'}') {
                return Ok(Node::Object(members.list));
            }
            if !self.accept(b',') {
                return Err(self.error("expected , or }"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node, ParseError> {
        self.enter(depth)?;
        let mut elements = Vec::new();
        if self.accept(b']') {
            return Ok(Node::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if self.accept(b']') {
                return Ok(Node::Array(elements));
            }
            if !self.accept(b',') {
                return Err(self.error("expected , or ]"));
            }
        }
    }

    /// A member's name and its colon. Half a surrogate pair in a name is replaced: no schema can be named so.
    pub(super) fn name(&mut self) -> Result<Cow<'t, str>, ParseError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a name in double quotes"));
        }
        let name = match self.string()? {
            Text::Unicode(name) => name,
            Text::Utf16(units) => Cow::Owned(String::from_utf16_lossy(&units)),
        };
        if name.len() > NAME_LENGTH_MAX && name.encode_utf16().count() > NAME_LENGTH_MAX {
            return Err(self.error("a name is longer than 50000 characters"));
        }
        if !self.accept(b':') {
            return Err(self.error("expected :"));
        }
        Ok(name)
    }

    pub(super) fn word(&mut self, word: &'static str) -> Result<(), ParseError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let behind = rest.as_bytes().get(word.len()).copied();
        let ends =
            behind.is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte < 0x80 && byte != b'_');
        if !rest.starts_with(word) || !ends {
            return Err(self.error("unknown word"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A string with its quotes, at the first of them, if it may be written as it is read: no escapes in it, and no
    /// character that needs one. Otherwise nothing is taken.
    pub(super) fn plain_string(&mut self) -> Option<&'t str> {
        let start = self.at;
        let text = self.text.as_bytes().get(start + 1..)?;
        let length = text.iter().position(|byte| ENDS_RUN[usize::from(*byte)])?;
        if text.get(length) != Some(&b'"') || length > TEXT_LENGTH_MAX {
            return None;
        }
        self.at = start + length + 2;
        self.text.get(start..self.at)
    }

    /// A number that may be written as it is read, at its first character: a whole one of at most nine digits, or one
    /// with a point. Otherwise nothing is taken.
    pub(super) fn plain_number(&mut self) -> Option<PlainNumber<'t>> {
        let text = self.text.as_bytes().get(self.at..)?;
        let digits_of = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let sign = usize::from(text.first() == Some(&b'-'));
        let whole = digits_of(text.get(sign..)?);
        // Zero has two forms, and a fraction that begins with it may be written with an exponent.
        if text.get(sign) == Some(&b'0') || !(1..=PLAIN_DIGITS_MAX).contains(&whole) {
            return None;
        }
        let point = sign + whole;
        let (end, is_whole) = match text.get(point) {
            Some(b'e' | b'E') => return None,
            Some(b'.') => (point + 1 + digits_of(text.get(point + 1..)?), false),
            _ => (point, true),
        };
        if !is_whole && (end == point + 1 || matches!(text.get(end), Some(b'e' | b'E'))) {
            return None;
        }
        let start = self.at;
        self.at += end;
        let text = self.text.get(start..self.at)?;
        Some(PlainNumber { text, whole, is_whole })
    }

    /// A string, at its opening quote.
    pub(super) fn string(&mut self) -> Result<Text<'t>, ParseError> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    if text.len() > TEXT_LENGTH_MAX {
                        return Err(self.error("a text is longer than 20000000 characters"));
                    }
                    return Ok(Text::Unicode(Cow::Borrowed(text)));
                }
                Some(b'\\') => return self.escaped_string(start),
                Some(0..0x20) => return Err(self.error("control character in a text")),
                Some(_) => self.at += 1,
                None => return Err(self.error("unexpected end")),
            }
        }
    }

    /// The rest of a string from its first escape on.
    fn escaped_string(&mut self, start: usize) -> Result<Text<'t>, ParseError> {
        let mut units: Vec<u16> =
            self.text.get(start..self.at).unwrap_or_default().encode_utf16().collect();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(character) = rest.chars().next() else {
                return Err(self.error("unexpected end"));
            };
            self.at += character.len_utf8();
            match character {
                '"' => break,
                '\\' => units.push(self.escape()?),
                '\0'..' ' => return Err(self.error("control character in a text")),
                other => units.extend_from_slice(other.encode_utf16(&mut [0; 2])),
            }
        }
        if units.len() > TEXT_LENGTH_MAX {
            return Err(self.error("a text is longer than 20000000 characters"));
        }
        Ok(match String::from_utf16(&units) {
            Ok(text) => Text::Unicode(Cow::Owned(text)),
            Err(_) => Text::Utf16(units),
        })
    }

    fn escape(&mut self) -> Result<u16, ParseError> {
        let escape = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        let byte = match escape {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unit(),
            _ => return Err(self.error("unknown escape")),
        };
        Ok(u16::from(byte))
    }

    fn unit(&mut self) -> Result<u16, ParseError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let unit = digits.iter().try_fold(0_u16, |unit, digit| {
            char::from(*digit).to_digit(16).map(|digit| unit << 4 | digit as u16)
        });
        let unit = unit.filter(|_| digits.len() == 4);
        self.at += 4;
        unit.ok_or_else(|| self.error("\\u is not followed by four hexadecimal digits"))
    }

    /// A number, at its first character.
    pub(super) fn number(&mut self) -> Result<Number<'t>, ParseError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += usize::from(bytes.get(self.at) == Some(&b'-'));
        let leading_zero = bytes.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 {
            return Err(self.error("a number has no digits"));
        }
        if leading_zero && whole > 1 {
            return Err(self.error("a number has leading zeros"));
        }
        let fraction = if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            Some(self.digits())
        } else {
            None
        };
        let exponent = if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            Some(self.digits())
        } else {
            None
        };
        if fraction == Some(0) || exponent == Some(0) {
            return Err(self.error("a point or an exponent has no digits"));
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if fraction.is_none() && exponent.is_none() {
            return self.integer(text, whole);
        }
        // Jackson counts a missing part of a number that starts with 0 as one digit less.
        let absent = usize::from(leading_zero);
        let length = whole + fraction.unwrap_or(0) + exponent.unwrap_or(0);
        let missing = absent * (usize::from(fraction.is_none()) + usize::from(exponent.is_none()));
        if length - missing.min(length) > NUMBER_LENGTH_MAX {
            return Err(self.error("a number has more than 1000 digits"));
        }
        Ok(Number::Double(text))
    }

    /// The value of a number with a point or an exponent.
    pub(super) fn double(&self, text: &str) -> Result<f64, ParseError> {
        text.parse().map_err(|_| self.error("not a number"))
    }

    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Takes again what was taken since `position`.
    pub(super) const fn go_back(&mut self, position: usize) {
        self.at = position;
    }

    fn integer(&self, text: &'t str, digits: usize) -> Result<Number<'t>, ParseError> {
        if digits > NUMBER_LENGTH_MAX {
            return Err(self.error("a number has more than 1000 digits"));
        }
        Ok(match text.parse::<i64>() {
            Ok(value) => i32::try_from(value).map_or(Number::Long(value), Number::Int),
            Err(_) => Number::BigInteger(text),
        })
    }

    fn digits(&mut self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }
}

/// Members of an object while they are read.
#[derive(Default)]
struct Members {
    list: Vec<(String, Node)>,
    positions: HashMap<String, usize>,
}

impl Members {
    fn put(&mut self, name: String, value: Node) {
        if let Some((_, slot)) = self.position(&name).and_then(|index| self.list.get_mut(index)) {
            *slot = value;
            return;
        }
        if self.list.len() >= MEMBERS_SCANNED_MAX {
            self.positions.insert(name.clone(), self.list.len());
        }
        self.list.push((name, value));
        if self.list.len() == MEMBERS_SCANNED_MAX {
            let positions = self.list.iter().enumerate();
            self.positions = positions.map(|(index, (name, _))| (name.clone(), index)).collect();
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        if self.list.len() < MEMBERS_SCANNED_MAX {
            return self.list.iter().position(|(member, _)| member == name);
        }
        self.positions.get(name).copied()
    }
}
