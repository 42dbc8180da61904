//! Reads Java's syntax of regular expressions.

mod set;

use std::collections::HashMap;

use set::Escape;

use super::RegexError;
use super::class::Class;
use super::node::{Assertion, Case, Greed, Node, Parsed};

/// Deepest nesting of groups and classes.
const DEPTH_MAX: usize = 100;

/// Most repetitions in braces; each is written out when the expression is compiled.
const REPETITIONS_MAX: u32 = 10_000;

pub(super) fn parse(expression: &str) -> Result<Parsed, RegexError> {
    let mut parser = Parser {
        characters: expression.chars().collect(),
        at: 0,
        flags: Flags::default(),
        group_count: 0,
        group_names: HashMap::new(),
        depth: 0,
    };
    let root = parser.alternatives()?;
    if parser.at < parser.characters.len() {
        return Err(parser.error("Unmatched closing ')'"));
    }
    Ok(Parsed { root, group_names: parser.group_names, group_count: parser.group_count })
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    unicode_case: bool,
    /// `(?U)`: the predefined classes are Unicode's.
    unicode_classes: bool,
    multi_line: bool,
    dot_all: bool,
    comments: bool,
    unix_lines: bool,
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    flags: Flags,
    group_count: usize,
    group_names: HashMap<String, usize>,
    depth: usize,
}

impl Parser {
    fn error(&self, message: &str) -> RegexError {
        RegexError { message: message.to_owned(), index: self.at }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn accept(&mut self, text: &str) -> bool {
        let length = text.chars().count();
        let found = self.characters.iter().skip(self.at).take(length).copied().eq(text.chars());
        if found {
            self.at += length;
        }
        found
    }

    fn skip_comments(&mut self) {
        while self.flags.comments {
            match self.peek() {
                Some(' ' | '\t'..='\r') => self.at += 1,
                Some('#') => while self.next().is_some_and(|next| next != '\n') {},
                _ => break,
            }
        }
    }

    const fn case(&self) -> Case {
        match (self.flags.ignore_case, self.flags.unicode_case) {
            (false, _) => Case::Exact,
            (true, false) => Case::IgnoreAscii,
            (true, true) => Case::IgnoreUnicode,
        }
    }

    fn alternatives(&mut self) -> Result<Node, RegexError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("Too deeply nested"));
        }
        let mut alternatives = vec![self.sequence()?];
        while self.accept("|") {
            alternatives.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if alternatives.len() == 1 {
            alternatives.pop().unwrap_or(Node::Empty)
        } else {
            Node::Alternatives(alternatives)
        })
    }

    fn sequence(&mut self) -> Result<Node, RegexError> {
        let mut nodes = Vec::new();
        loop {
            self.skip_comments();
            match self.peek() {
                None | Some('|' | ')') => return Ok(Node::Concat(nodes)),
                Some(_) => {}
            }
            if self.accept("\\Q") {
                self.quoted(&mut nodes)?;
                continue;
            }
            let atom = self.atom()?;
            nodes.push(self.repeated(atom)?);
        }
    }

    /// Characters between `\Q` and `\E`; a quantifier behind belongs to the last of them.
    fn quoted(&mut self, nodes: &mut Vec<Node>) -> Result<(), RegexError> {
        let mut last = None;
        while !self.accept("\\E") {
            let Some(character) = self.next() else { break };
            nodes.extend(last.replace(Node::Character(character, self.case())));
        }
        if let Some(last) = last {
            nodes.push(self.repeated(last)?);
        }
        Ok(())
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node, RegexError> {
        loop {
            self.skip_comments();
            let (min, max) = match self.peek() {
                Some('?') => (0, Some(1)),
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('{') => {
                    self.at += 1;
                    self.counts()?
                }
                _ => return Ok(node),
            };
            // The sign, or the closing brace.
            self.at += 1;
            let greed = if self.accept("?") {
                Greed::Lazy
            } else if self.accept("+") {
                Greed::Possessive
            } else {
                Greed::Greedy
            };
            node = Node::Repeat { node: Box::new(node), min, max, greed };
        }
    }

    /// The numbers in `{n}`, `{n,}` and `{n,m}`; stops at the closing brace.
    fn counts(&mut self) -> Result<(u32, Option<u32>), RegexError> {
        let min = self.number().ok_or_else(|| self.error("Illegal repetition"))?;
        let max = if self.accept(",") {
            if self.peek() == Some('}') { None } else { self.number() }
        } else {
            Some(min)
        };
        if self.peek() != Some('}') {
            return Err(self.error("Unclosed counted closure"));
        }
        if max.is_some_and(|max| max < min) || max.unwrap_or(min) > REPETITIONS_MAX {
            return Err(self.error("Illegal repetition range"));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.at;
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
        }
        self.characters.get(start..self.at)?.iter().collect::<String>().parse().ok()
    }

    fn atom(&mut self) -> Result<Node, RegexError> {
        let Some(character) = self.next() else { return Ok(Node::Empty) };
        let assertion = match character {
            '(' => return self.group(),
            '[' => return Ok(Node::Class(self.class()?, self.case())),
            '\\' => return self.escaped_atom(),
            '.' => return Ok(Node::Class(self.dot(), Case::Exact)),
            '^' if self.flags.multi_line => Assertion::LineStart,
            '^' => Assertion::InputStart,
            '$' if self.flags.multi_line => Assertion::LineEnd,
            '$' => Assertion::InputEndBeforeTerminator,
            '*' | '+' | '?' => {
                self.at -= 1;
                return Err(self.error(&format!("Dangling meta character '{character}'")));
            }
            '{' => {
                self.at -= 1;
                return Err(self.error("Illegal repetition"));
            }
            other => return Ok(Node::Character(other, self.case())),
        };
        Ok(Node::Assertion(assertion))
    }

    const fn dot(&self) -> Class {
        match (self.flags.dot_all, self.flags.unix_lines) {
            (true, _) => Class::Any,
            (false, true) => Class::DotUnixLines,
            (false, false) => Class::Dot,
        }
    }

    fn group(&mut self) -> Result<Node, RegexError> {
        let outer = self.flags;
        let look = |ahead, negative| move |node| Node::Look { node, ahead, negative };
        if !self.accept("?") {
            self.group_count += 1;
            let index = self.group_count;
            return self.group_body(outer, |node| Node::Group(node, index));
        }
        if self.accept(":") {
            return self.group_body(outer, |node| *node);
        }
        if self.accept(">") {
            return self.group_body(outer, Node::Atomic);
        }
        if self.accept("=") {
            return self.group_body(outer, look(true, false));
        }
        if self.accept("!") {
            return self.group_body(outer, look(true, true));
        }
        if self.accept("<=") {
            return self.group_body(outer, look(false, false));
        }
        if self.accept("<!") {
            return self.group_body(outer, look(false, true));
        }
        if self.accept("<") {
            let name = self.group_name()?;
            self.group_count += 1;
            let index = self.group_count;
            if self.group_names.insert(name.clone(), index).is_some() {
                return Err(
                    self.error(&format!("Named capturing group <{name}> is already defined"))
                );
            }
            return self.group_body(outer, |node| Node::Group(node, index));
        }
        self.read_flags()?;
        if self.accept(")") {
            // The flags hold until the end of the group around.
            return Ok(Node::Empty);
        }
        if !self.accept(":") {
            return Err(self.error("Unknown inline modifier"));
        }
        self.group_body(outer, |node| *node)
    }

    fn group_body(
        &mut self,
        outer: Flags,
        wrap: impl FnOnce(Box<Node>) -> Node,
    ) -> Result<Node, RegexError> {
        let node = self.alternatives()?;
        if !self.accept(")") {
            return Err(self.error("Unclosed group"));
        }
        self.flags = outer;
        Ok(wrap(Box::new(node)))
    }

    fn group_name(&mut self) -> Result<String, RegexError> {
        let mut name = String::new();
        while let Some(next) = self.peek().filter(char::is_ascii_alphanumeric) {
            self.at += 1;
            name.push(next);
        }
        let starts_with_letter = name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !starts_with_letter || !self.accept(">") {
            return Err(self.error("A group name is a letter, then letters and digits, then '>'"));
        }
        Ok(name)
    }

    fn read_flags(&mut self) -> Result<(), RegexError> {
        let mut on = true;
        loop {
            match self.peek() {
                Some('i') => self.flags.ignore_case = on,
                Some('m') => self.flags.multi_line = on,
                Some('s') => self.flags.dot_all = on,
                Some('x') => self.flags.comments = on,
                Some('d') => self.flags.unix_lines = on,
                Some('u') => self.flags.unicode_case = on,
                Some('U') => {
                    self.flags.unicode_classes = on;
                    self.flags.unicode_case = on;
                }
                Some('-') if on => on = false,
                _ => return Ok(()),
            }
            self.at += 1;
        }
    }

    fn escaped_atom(&mut self) -> Result<Node, RegexError> {
        let Some(character) = self.peek() else {
            return Err(self.error("Unexpected internal error"));
        };
        let assertion = match character {
            'b' => Assertion::WordBoundary,
            'B' => Assertion::NotWordBoundary,
            // `\G` is the end of the match before, and there is none before the first.
            'A' | 'G' => Assertion::InputStart,
            'z' => Assertion::InputEnd,
            'Z' => Assertion::InputEndBeforeTerminator,
            'R' => {
                self.at += 1;
                return Ok(Node::LineBreak);
            }
            'k' => {
                self.at += 1;
                return self.named_back_reference();
            }
            '1'..='9' => return Ok(self.numbered_back_reference()),
            _ => {
                return Ok(match self.escape()? {
                    Escape::Character(character) => Node::Character(character, self.case()),
                    Escape::Class(class) => Node::Class(class, self.case()),
                });
            }
        };
        self.at += 1;
        Ok(Node::Assertion(assertion))
    }

    fn named_back_reference(&mut self) -> Result<Node, RegexError> {
        if !self.accept("<") {
            return Err(self.error("\\k is not followed by '<' for named capturing group"));
        }
        let name = self.group_name()?;
        let index = self.group_names.get(&name).copied();
        let index = index
            .ok_or_else(|| self.error(&format!("named capturing group <{name}> does not exist")))?;
        Ok(Node::BackReference(index, self.case()))
    }

    /// Digits belong to the number as long as there is such a group already.
    fn numbered_back_reference(&mut self) -> Node {
        let mut index = 0;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(10)) {
            let longer = index * 10 + digit as usize;
            if index > 0 && longer > self.group_count {
                break;
            }
            index = longer;
            self.at += 1;
        }
        Node::BackReference(index, self.case())
    }
}
