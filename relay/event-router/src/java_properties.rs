//! Java's form of properties, in which a row tells its tracing context, and files hold what options refer to.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::data::DataError;

/// Keys and values; the last of equal keys counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Reads properties, as `java.util.Properties.load` does.
    ///
    /// # Errors
    /// When `\u` is not followed by four hexadecimal digits.
    pub fn load(text: &str) -> Result<Self, DataError> {
        let mut properties = BTreeMap::new();
        let mut chars = text.chars().peekable();
        while let Some(line) = logical_line(&mut chars) {
            let (key, value) = split(&line);
            properties.insert(unescape(key)?, unescape(value)?);
        }
        Ok(Self(properties))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

const fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{c}')
}

/// The next line that is neither empty nor a comment, joined with those that continue it, escapes as they are.
fn logical_line(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    loop {
        while chars.next_if(|char| is_blank(*char) || matches!(char, '\n' | '\r')).is_some() {}
        if chars.next_if(|char| matches!(char, '#' | '!')).is_none() {
            break;
        }
        while chars.next_if(|char| !matches!(char, '\n' | '\r')).is_some() {}
    }
    chars.peek()?;
    let mut line = String::new();
    while let Some(char) = chars.next() {
        match char {
            '\n' | '\r' => break,
            '\\' => match chars.next() {
                Some(end @ ('\n' | '\r')) => {
                    if end == '\r' {
                        chars.next_if_eq(&'\n');
                    }
                    while chars.next_if(|char| is_blank(*char)).is_some() {}
                }
                Some(escaped) => line.extend(['\\', escaped]),
                // A backslash at the very end says nothing.
                None => {}
            },
            char => line.push(char),
        }
    }
    Some(line)
}

/// Key and value: the key ends at the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, char)| {
        let ends = !escaped && (is_blank(*char) || matches!(char, '=' | ':'));
        escaped = !escaped && *char == '\\';
        ends
    });
    let Some((end, _)) = end else { return (line, "") };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, DataError> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let mut units = vec![unit(&mut chars)?];
                // A character outside of the first 65,536 is written as two.
                while let Some(rest) = chars.as_str().strip_prefix("\\u") {
                    chars = rest.chars();
                    units.push(unit(&mut chars)?);
                }
                plain.push_str(&String::from_utf16_lossy(&units));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Ok(plain)
}

/// One of Java's characters, by four hexadecimal digits.
fn unit(chars: &mut Chars<'_>) -> Result<u16, DataError> {
    let digits: String = chars.take(4).collect();
    let is_code = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| is_code);
    unit.ok_or_else(|| DataError("Malformed \\uxxxx encoding.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# a comment\n! another\r\n\n  key = value \nkey2:v2\nkey3 v3\nempty\n\
                    long=a\\\n   b\\\r\n c\nalone=1\\\n\nbehind=2\nclef=\\uD834\\uDD1E\nesc\\=aped=\\u0041\\tx\\\\\nkey2=again\nlast=x\\";
        let properties = Properties::load(text).unwrap();
        let expected = [
            ("key", "value "),
            ("key2", "again"),
            ("key3", "v3"),
            ("empty", ""),
            ("long", "abc"),
            ("alone", "1"),
            ("behind", "2"),
            ("clef", "\u{1d11e}"),
            ("esc=aped", "A\tx\\"),
            ("last", "x"),
        ];
        for (key, value) in expected {
            assert_eq!(properties.get(key), Some(value), "{key}");
        }
        assert_eq!(properties.0.len(), expected.len());
        assert!(Properties::load("a=\\u00g1").is_err());
        assert_eq!(Properties::load(""), Ok(Properties::default()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\\\#!=: \\t\\r\\nu0aé]{0,40}") {
            let _ = Properties::load(&text);
        }
    }
}
