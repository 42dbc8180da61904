//! Java's regular expressions: the syntax and the leftmost, first-choice matching of `java.util.regex`.
//!
//! Routing rules written for Debezium may use what Rust's own expressions leave out (look-around, back-references,
//! possessive quantifiers, class intersection). This matcher backtracks as Java's does, with its own stack and with
//! a limit on the steps, so that no expression can hang the relay.

mod class;
mod compile;
mod node;
mod parse;
mod run;

use std::collections::HashMap;

use compile::Program;

/// An expression that Java would not take either, or one of the few things that are not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} near index {index}")]
pub struct RegexError {
    /// What is wrong.
    pub message: String,
    /// Position in the expression, in characters.
    pub index: usize,
}

/// Matching was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the expression takes too many steps for this text")]
pub struct TooManySteps;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Regex {
    program: Program,
    group_names: HashMap<String, usize>,
    group_count: usize,
}

/// A match and its groups.
#[derive(Debug)]
pub struct Match<'t> {
    text: &'t str,
    /// Byte offsets of start and end of each group; group 0 is the whole match.
    groups: Vec<Option<(usize, usize)>>,
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is malformed or uses something that is not supported (Unicode blocks, `\X`, `\N`).
    pub fn new(expression: &str) -> Result<Self, RegexError> {
        let parsed = parse::parse(expression)?;
        let program = compile::compile(&parsed)?;
        Ok(Self { program, group_names: parsed.group_names, group_count: parsed.group_count })
    }

    /// Number of groups, not counting the whole match.
    #[must_use]
    pub const fn group_count(&self) -> usize {
        self.group_count
    }

    /// Number of a named group.
    #[must_use]
    pub fn group_index(&self, name: &str) -> Option<usize> {
        self.group_names.get(name).copied()
    }

    /// Whether the expression matches all of a text.
    ///
    /// # Errors
    /// When it takes too many steps.
    pub fn matches(&self, text: &str) -> Result<bool, TooManySteps> {
        let input = run::Input::new(text);
        Ok(run::run(&self.program, &input, 0, true, self.group_count)?.is_some())
    }

    /// The first match in a text.
    ///
    /// # Errors
    /// When it takes too many steps.
    pub fn find<'t>(&self, text: &'t str) -> Result<Option<Match<'t>>, TooManySteps> {
        let input = run::Input::new(text);
        for start in 0..=input.len() {
            if let Some(slots) = run::run(&self.program, &input, start, false, self.group_count)? {
                let groups = slots
                    .chunks(2)
                    .map(|pair| match pair {
                        [Some(start), Some(end)] => {
                            Some((input.offset(*start), input.offset(*end)))
                        }
                        _ => None,
                    })
                    .collect();
                return Ok(Some(Match { text, groups }));
            }
        }
        Ok(None)
    }
}

impl<'t> Match<'t> {
    /// Text of a group; none where it took no part.
    #[must_use]
    pub fn group(&self, index: usize) -> Option<&'t str> {
        let (start, end) = self.groups.get(index).copied().flatten()?;
        self.text.get(start..end)
    }

    /// Text before the match.
    #[must_use]
    pub fn before(&self) -> &'t str {
        let start = self.groups.first().copied().flatten().map_or(0, |(start, _)| start);
        self.text.get(..start).unwrap_or_default()
    }

    /// Text behind the match.
    #[must_use]
    pub fn after(&self) -> &'t str {
        let end = self.groups.first().copied().flatten().map_or(self.text.len(), |(_, end)| end);
        self.text.get(end..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
