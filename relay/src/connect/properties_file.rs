//! Java's properties files, as `java.util.Properties` reads them: what the provider `file` looks values up in. Pure.

use std::iter::Peekable;
use std::str::Chars;

/// The value of a key; the last one where it comes again. None: it is not there.
pub(super) fn value(text: &str, key: &str) -> Option<String> {
    let pairs = logical_lines(text).into_iter().map(|line| pair(&line));
    pairs.filter(|(name, _)| name == key).map(|(_, value)| value).next_back()
}

/// Lines without comments and blank ones. A backslash at the end of a line takes the next one along, without its
/// leading blanks.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let text = text.replace("\r\n", "\n");
    let mut natural = text.split(['\n', '\r']).map(|line| line.trim_start_matches(is_blank));
    while let Some(line) = natural.next() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_in_backslash(&whole) {
            whole.pop();
            let Some(next) = natural.next() else { break };
            whole.push_str(next);
        }
        lines.push(whole);
    }
    lines
}

const fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{c}')
}

/// Two of them are an escaped one.
fn ends_in_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn pair(line: &str) -> (String, String) {
    let mut chars = line.chars().peekable();
    let name = unescaped(&mut chars, |char| matches!(char, '=' | ':') || is_blank(char));
    let skip_blanks =
        |chars: &mut Peekable<Chars<'_>>| while chars.next_if(|c| is_blank(*c)).is_some() {};
    skip_blanks(&mut chars);
    if chars.next_if(|char| matches!(char, '=' | ':')).is_some() {
        skip_blanks(&mut chars);
    }
    (name, unescaped(&mut chars, |_| false))
}

/// Up to a character that is not escaped and `ends`.
fn unescaped(chars: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(char) = chars.next_if(|char| !ends(*char)) {
        if char != '\\' {
            text.push(char);
            continue;
        }
        match chars.next() {
            None => {}
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\u{c}'),
            Some('u') => text.extend(code_point(chars)),
            Some(other) => text.push(other),
        }
    }
    text
}

/// Four hexadecimal digits, and as many again for a character outside of the first 65,536; what is none is left out.
fn code_point(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let mut unit = || {
        let digits: String = chars.by_ref().take(4).collect();
        u16::from_str_radix(&digits, 16).ok()
    };
    let first = unit()?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::decode_utf16([first]).next()?.ok();
    }
    let mut ahead = chars.clone();
    if ahead.next() != Some('\\') || ahead.next() != Some('u') {
        return None;
    }
    *chars = ahead;
    let digits: String = chars.by_ref().take(4).collect();
    let second = u16::from_str_radix(&digits, 16).ok()?;
    char::decode_utf16([first, second]).next()?.ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_and_values_are_read_as_java_reads_them() {
        let text = "# pw=no\r\n! pw=no\n\n  pw = from a file  \ncolon: a:b\nblank c=d\nempty\n\
                    again=1\nagain=2\na\\=b\\ c=d";
        for (key, expected) in [
            ("pw", "from a file  "),
            ("colon", "a:b"),
            ("blank", "c=d"),
            ("empty", ""),
            ("again", "2"),
            ("a=b c", "d"),
        ] {
            assert_eq!(value(text, key).as_deref(), Some(expected), "{key}");
        }
        assert_eq!(value(text, "# pw"), None);
        assert_eq!(value(text, "no"), None);
    }

    #[test]
    fn escapes_and_lines_that_go_on_are_read() {
        let text = "back=a\\\\b\nodd=a\\bc\ntab=a\\tb\nlong=one,\\\r\n    two\nalone=1\\\n\nbehind=2\nend=\\\\\nnext=1\n\
                    umlaut=\\u00e4\nclef=\\uD834\\uDD1E\nlast=x\\";
        for (key, expected) in [
            ("back", "a\\b"),
            ("odd", "abc"),
            ("tab", "a\tb"),
            ("long", "one,two"),
            ("alone", "1"),
            ("behind", "2"),
            ("end", "\\"),
            ("next", "1"),
            ("umlaut", "ä"),
            ("clef", "𝄞"),
            ("last", "x"),
        ] {
            assert_eq!(value(text, key).as_deref(), Some(expected), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String, key: String) {
            let _ = value(&text, &key);
            let _ = value(&format!("{key}={text}\\u12"), &key);
        }
    }
}
