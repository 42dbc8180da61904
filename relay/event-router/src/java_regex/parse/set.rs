//! Escapes, and character classes in brackets.

use super::{DEPTH_MAX, Parser};
use crate::java_regex::RegexError;
use crate::java_regex::class::Class;

/// An escape that stands for one character or for a set.
pub(super) enum Escape {
    Character(char),
    Class(Class),
}

impl Parser {
    /// What follows a backslash, inside and outside of classes.
    pub(super) fn escape(&mut self) -> Result<Escape, RegexError> {
        let Some(character) = self.next() else {
            return Err(self.error("Unexpected internal error"));
        };
        let not = |class| Escape::Class(Class::Not(Box::new(class)));
        Ok(match character {
            'd' | 'w' | 's' => Escape::Class(self.predefined(character)?),
            'D' | 'W' | 'S' => not(self.predefined(character.to_ascii_lowercase())?),
            'h' => Escape::Class(Class::HorizontalSpace),
            'H' => not(Class::HorizontalSpace),
            'v' => Escape::Class(Class::VerticalSpace),
            'V' => not(Class::VerticalSpace),
            'p' => Escape::Class(self.property()?),
            'P' => not(self.property()?),
            't' => Escape::Character('\t'),
            'n' => Escape::Character('\n'),
            'r' => Escape::Character('\r'),
            'f' => Escape::Character('\u{c}'),
            'a' => Escape::Character('\u{7}'),
            'e' => Escape::Character('\u{1b}'),
            '0' => Escape::Character(self.octal()?),
            'x' => Escape::Character(self.hexadecimal()?),
            'u' => Escape::Character(self.code_point(4)?),
            'c' => {
                let control = self.next().and_then(|next| char::from_u32(u32::from(next) ^ 0x40));
                Escape::Character(
                    control.ok_or_else(|| self.error("Illegal control escape sequence"))?,
                )
            }
            other if other.is_ascii_alphabetic() => {
                return Err(self.error("Illegal/unsupported escape sequence"));
            }
            other => Escape::Character(other),
        })
    }

    fn predefined(&self, letter: char) -> Result<Class, RegexError> {
        Class::predefined(letter, self.flags.unicode_classes)
            .ok_or_else(|| self.error("Unknown predefined class"))
    }

    fn octal(&mut self) -> Result<char, RegexError> {
        let mut value = 0;
        let mut digits = 0;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(8)) {
            if digits == 3 || value * 8 + digit > 0o377 {
                break;
            }
            value = value * 8 + digit;
            digits += 1;
            self.at += 1;
        }
        let character = if digits == 0 { None } else { char::from_u32(value) };
        character.ok_or_else(|| self.error("Illegal octal escape sequence"))
    }

    fn hexadecimal(&mut self) -> Result<char, RegexError> {
        if !self.accept("{") {
            return self.code_point(2);
        }
        let mut digits = String::new();
        while let Some(digit) = self.next().filter(|next| *next != '}') {
            digits.push(digit);
        }
        let character = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        character.ok_or_else(|| self.error("Illegal hexadecimal escape sequence"))
    }

    fn code_point(&mut self, length: usize) -> Result<char, RegexError> {
        let digits: String = self.characters.iter().skip(self.at).take(length).collect();
        let value = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == length);
        let character = value.and_then(char::from_u32);
        self.at += length;
        character.ok_or_else(|| self.error("Illegal hexadecimal or Unicode escape sequence"))
    }

    fn property(&mut self) -> Result<Class, RegexError> {
        let mut name = String::new();
        if self.accept("{") {
            loop {
                match self.next() {
                    Some('}') => break,
                    Some(next) => name.push(next),
                    None => return Err(self.error("Unclosed character family")),
                }
            }
        } else {
            name.extend(self.next());
        }
        Class::property(&name, self.flags.unicode_classes).ok_or_else(|| {
            self.error(&format!("Unknown or unsupported character property {{{name}}}"))
        })
    }

    /// A class behind its opening bracket.
    pub(super) fn class(&mut self) -> Result<Class, RegexError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("Too deeply nested"));
        }
        let negated = self.accept("^");
        let mut left: Option<Class> = None;
        let mut items = Vec::new();
        loop {
            if self.accept("&&") {
                left = Some(intersect(left, std::mem::take(&mut items)));
                continue;
            }
            match self.peek() {
                None => return Err(self.error("Unclosed character class")),
                Some(']') if !items.is_empty() || left.is_some() => {
                    self.at += 1;
                    break;
                }
                Some('[') => {
                    self.at += 1;
                    items.push(self.class()?);
                }
                Some(_) => self.class_item(&mut items)?,
            }
        }
        self.depth -= 1;
        let class = intersect(left, items);
        Ok(if negated { Class::Not(Box::new(class)) } else { class })
    }

    fn class_item(&mut self, items: &mut Vec<Class>) -> Result<(), RegexError> {
        if self.accept("\\Q") {
            while !self.accept("\\E") {
                match self.next() {
                    Some(character) => items.push(Class::One(character)),
                    None => return Err(self.error("Unclosed character class")),
                }
            }
            return Ok(());
        }
        let first = match self.class_character()? {
            Escape::Class(class) => {
                items.push(class);
                return Ok(());
            }
            Escape::Character(first) => first,
        };
        // A hyphen before the end or before a class is a hyphen.
        let behind = self.characters.get(self.at + 1).copied();
        if self.peek() != Some('-') || matches!(behind, None | Some(']' | '[')) {
            items.push(Class::One(first));
            return Ok(());
        }
        self.at += 1;
        match self.class_character()? {
            Escape::Character(last) if first <= last => items.push(Class::Range(first, last)),
            Escape::Character(_) => return Err(self.error("Illegal character range")),
            Escape::Class(class) => items.extend([Class::One(first), Class::One('-'), class]),
        }
        Ok(())
    }

    fn class_character(&mut self) -> Result<Escape, RegexError> {
        match self.next() {
            Some('\\') => self.escape(),
            Some(character) => Ok(Escape::Character(character)),
            None => Err(self.error("Unclosed character class")),
        }
    }
}

fn intersect(left: Option<Class>, items: Vec<Class>) -> Class {
    match left {
        Some(left) if items.is_empty() => left,
        Some(left) => Class::Intersection(Box::new(left), Box::new(Class::Union(items))),
        None => Class::Union(items),
    }
}
