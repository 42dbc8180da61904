//! The syntax tree of an expression.

use std::collections::HashMap;

use super::class::Class;

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) group_names: HashMap<String, usize>,
    pub(super) group_count: usize,
}

/// How often a repetition gives back what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

/// How letters are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Exact,
    IgnoreAscii,
    IgnoreUnicode,
}

/// A position that takes no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assertion {
    InputStart,
    InputEnd,
    /// The end, or before the line terminator at the end.
    InputEndBeforeTerminator,
    LineStart,
    LineEnd,
    WordBoundary,
    NotWordBoundary,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Empty,
    Character(char, Case),
    Class(Class, Case),
    Assertion(Assertion),
    /// `\R`.
    LineBreak,
    Concat(Vec<Node>),
    Alternatives(Vec<Node>),
    Group(Box<Node>, usize),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    BackReference(usize, Case),
    Atomic(Box<Node>),
    Look {
        node: Box<Node>,
        ahead: bool,
        negative: bool,
    },
}

impl Node {
    /// Shortest and longest match in characters; no longest where there is none or it depends on a group.
    pub(super) fn length(&self) -> (usize, Option<usize>) {
        match self {
            Self::Empty | Self::Assertion(_) | Self::Look { .. } => (0, Some(0)),
            Self::Character(..) | Self::Class(..) => (1, Some(1)),
            Self::LineBreak => (1, Some(2)),
            Self::BackReference(..) => (0, None),
            Self::Group(node, _) | Self::Atomic(node) => node.length(),
            Self::Concat(nodes) => {
                nodes.iter().map(Self::length).fold((0, Some(0)), |sum, next| {
                    (sum.0 + next.0, sum.1.zip(next.1).map(|(left, right)| left + right))
                })
            }
            Self::Alternatives(nodes) => nodes
                .iter()
                .map(Self::length)
                .reduce(|left, right| {
                    (left.0.min(right.0), left.1.zip(right.1).map(|(a, b)| a.max(b)))
                })
                .unwrap_or((0, Some(0))),
            Self::Repeat { node, min, max, .. } => {
                let (shortest, longest) = node.length();
                let times = |count: u32, length: usize| length.saturating_mul(count as usize);
                (times(*min, shortest), max.zip(longest).map(|(max, longest)| times(max, longest)))
            }
        }
    }
}
