//! JSON text as Jackson writes it: its escapes, its numbers.

use crate::data::{double_to_java, float_to_java};

/// Appends a JSON string. Characters beyond U+FFFF are written as two escapes, as Jackson does by default.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// Appends a JSON string of UTF-16 units; halves of surrogate pairs are escaped like whole ones.
pub fn write_utf16(units: &[u16], out: &mut Vec<u8>) {
    out.push(b'"');
    for unit in units {
        match char::from_u32(u32::from(*unit)) {
            Some(character) => write_escaped(character.encode_utf8(&mut [0; 4]), out),
            None => write_unit(*unit, out),
        }
    }
    out.push(b'"');
}

/// Appends a string's characters, escaped, without quotes.
pub fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        // Most bytes need nothing: they are copied in runs.
        if !needs_escape(byte) {
            index += 1;
            continue;
        }
        out.extend_from_slice(&bytes[start..index]);
        if byte >= FOUR_BYTE_LEAD {
            index = write_astral(text, index, out);
        } else {
            write_short_escape(byte, out);
            index += 1;
        }
        start = index;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Appends a 64 bit floating point number; NaN and infinities as strings.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    write_number(&double_to_java(value), value.is_finite(), out);
}

/// Appends a 32 bit floating point number; NaN and infinities as strings.
pub fn write_float(value: f32, out: &mut Vec<u8>) {
    write_number(&float_to_java(value), value.is_finite(), out);
}

/// Appends an integer.
pub fn write_integer(value: i64, out: &mut Vec<u8>) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0_u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        // A remainder of ten fits a byte.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// First byte of a character beyond U+FFFF in UTF-8.
const FOUR_BYTE_LEAD: u8 = 0xf0;

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte >= FOUR_BYTE_LEAD
}

fn write_number(text: &str, finite: bool, out: &mut Vec<u8>) {
    if finite {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_string(text, out);
    }
}

fn write_short_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        other => return write_unit(u16::from(other), out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_astral(text: &str, index: usize, out: &mut Vec<u8>) -> usize {
    let Some(character) = text.get(index..).and_then(|rest| rest.chars().next()) else {
        return index + 1;
    };
    for unit in character.encode_utf16(&mut [0; 2]) {
        write_unit(*unit, out);
    }
    index + character.len_utf8()
}

fn write_unit(unit: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 0xf)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        write_string(text, &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn strings_are_escaped_as_jackson_escapes_them() {
        check("naïve ☃ \"q\" \\ /", r#""naïve ☃ \"q\" \\ /""#);
        check("😀", r#""\uD83D\uDE00""#);
        check(
            "\u{8}\t\n\u{c}\r\u{7}\u{1f}\u{7f}\u{2028}",
            "\"\\b\\t\\n\\f\\r\\u0007\\u001F\u{7f}\u{2028}\"",
        );
    }

    #[test]
    fn integers_are_written_up_to_their_limits() {
        for value in [0, 7, -1, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_integer(value, &mut out);
            assert_eq!(String::from_utf8(out).expect("ASCII"), value.to_string());
        }
    }
}
