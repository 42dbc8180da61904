//! Character classes: ranges, unions, intersections, and Java's predefined ones.

use std::sync::Arc;

/// A set of characters.
#[derive(Debug, Clone)]
pub(super) enum Class {
    /// One character.
    One(char),
    /// A range, both ends included.
    Range(char, char),
    /// `\d`: ASCII digits.
    Digit,
    /// `\w`: ASCII letters, digits and the underscore.
    Word,
    /// `\s`: ASCII white space.
    Space,
    /// `\h`.
    HorizontalSpace,
    /// `\v`.
    VerticalSpace,
    /// `.`: all but line terminators.
    Dot,
    /// `.` with `(?d)`: all but line feed.
    DotUnixLines,
    /// `.` with `(?s)`.
    Any,
    /// An ASCII class of POSIX.
    Ascii(fn(&u8) -> bool),
    /// A Unicode property; the expression matches one character that has it.
    Property(Arc<regex::Regex>),
    /// Any of these.
    Union(Vec<Class>),
    /// Both.
    Intersection(Box<Class>, Box<Class>),
    /// Not this.
    Not(Box<Class>),
}

impl Class {
    pub(super) fn contains(&self, character: char) -> bool {
        match self {
            Self::One(one) => *one == character,
            Self::Range(first, last) => (*first..=*last).contains(&character),
            Self::Digit => character.is_ascii_digit(),
            Self::Word => character.is_ascii_alphanumeric() || character == '_',
            Self::Space => matches!(character, ' ' | '\t'..='\r'),
            Self::HorizontalSpace => matches!(
                character,
                ' ' | '\t' | '\u{a0}' | '\u{1680}' | '\u{180e}' | '\u{2000}'
                    ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
            ),
            Self::VerticalSpace => {
                matches!(character, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
            }
            Self::Dot => !is_line_terminator(character),
            Self::DotUnixLines => character != '\n',
            Self::Any => true,
            Self::Ascii(test) => {
                u8::try_from(character).is_ok_and(|byte| byte.is_ascii() && test(&byte))
            }
            Self::Property(expression) => expression.is_match(character.encode_utf8(&mut [0; 4])),
            Self::Union(classes) => classes.iter().any(|class| class.contains(character)),
            Self::Intersection(left, right) => {
                left.contains(character) && right.contains(character)
            }
            Self::Not(class) => !class.contains(character),
        }
    }

    /// A predefined class by its letter, with `(?U)` in Unicode's form.
    pub(super) fn predefined(letter: char, is_unicode: bool) -> Option<Self> {
        match letter {
            'd' | 'w' | 's' if is_unicode => Self::unicode(&format!("\\{letter}")),
            'd' => Some(Self::Digit),
            'w' => Some(Self::Word),
            's' => Some(Self::Space),
            _ => None,
        }
    }

    /// The characters that an expression of one character matches.
    fn unicode(expression: &str) -> Option<Self> {
        let expression = regex::Regex::new(&format!("^{expression}$"));
        expression.ok().map(|expression| Self::Property(Arc::new(expression)))
    }

    /// A class by the name inside `\p{…}`; with `(?U)` those of POSIX have Unicode's members.
    pub(super) fn property(name: &str, is_unicode: bool) -> Option<Self> {
        let unicode = match name {
            "Lower" => r"\p{Lowercase}",
            "Upper" => r"\p{Uppercase}",
            "Alpha" => r"\p{Alphabetic}",
            "Digit" => r"\p{Nd}",
            "Alnum" => r"[\p{Alphabetic}\p{Nd}]",
            "Punct" => r"\p{P}",
            "Space" => r"\p{White_Space}",
            _ => "",
        };
        if is_unicode && !unicode.is_empty() {
            return Self::unicode(unicode);
        }
        let ascii: fn(&u8) -> bool = match name {
            "Lower" => u8::is_ascii_lowercase,
            "Upper" => u8::is_ascii_uppercase,
            "ASCII" => u8::is_ascii,
            "Alpha" => u8::is_ascii_alphabetic,
            "Digit" => u8::is_ascii_digit,
            "Alnum" => u8::is_ascii_alphanumeric,
            "Punct" => u8::is_ascii_punctuation,
            "Graph" => u8::is_ascii_graphic,
            "Print" => |byte| (0x20..=0x7e).contains(byte),
            "Blank" => |byte| matches!(byte, b' ' | b'\t'),
            "Cntrl" => u8::is_ascii_control,
            "XDigit" => u8::is_ascii_hexdigit,
            "Space" => return Some(Self::Space),
            _ => return Self::unicode_property(name),
        };
        Some(Self::Ascii(ascii))
    }

    fn unicode_property(name: &str) -> Option<Self> {
        let rust_name = match name {
            "javaLowerCase" | "IsLowercase" => "Lowercase",
            "javaUpperCase" | "IsUppercase" => "Uppercase",
            "javaAlphabetic" => "Alphabetic",
            "javaLetter" => "L",
            "javaDigit" => "Nd",
            "javaWhitespace" | "IsWhite_Space" | "IsWhiteSpace" => "White_Space",
            "L1" => return Some(Self::Range('\u{0}', '\u{ff}')),
            _ => {
                let name = name.strip_prefix("Is").unwrap_or(name);
                // `script=Latin`, `sc=Latin`, `general_category=Lu`, `gc=Lu`; blocks are not supported.
                match name.split_once('=') {
                    Some(("script" | "sc" | "general_category" | "gc", value)) => value,
                    Some(_) => return None,
                    None => name,
                }
            }
        };
        Self::unicode(&format!("\\p{{{rust_name}}}"))
    }
}

/// Java's line terminators, where they are one character.
pub(super) const fn is_line_terminator(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}
