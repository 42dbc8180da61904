//! Connect's `RegexRouter`: a topic from a name, a regular expression and a replacement.

use std::collections::HashMap;

use crate::event::RouteError;
use crate::java_regex::{Match, Regex};

/// Names whose topic is remembered; more are computed each time.
const REMEMBERED_MAX: usize = 1024;

/// Makes topics. The result for a name is remembered, as there are few aggregate types.
#[derive(Debug, Clone)]
pub struct TopicRouter {
    regex: Regex,
    replacement: String,
    remembered: HashMap<String, String>,
}

impl TopicRouter {
    /// A router of an expression that was checked.
    #[must_use]
    pub fn new(regex: Regex, replacement: &str) -> Self {
        Self { regex, replacement: replacement.to_owned(), remembered: HashMap::new() }
    }

    /// The topic for a name: the name itself where the expression does not match all of it, otherwise the name with
    /// the first match replaced.
    ///
    /// # Errors
    /// When the replacement names a group that the expression does not have, or matching takes too many steps.
    pub fn topic(&mut self, name: &str) -> Result<String, RouteError> {
        if let Some(topic) = self.remembered.get(name) {
            return Ok(topic.clone());
        }
        let topic = self.compute(name)?;
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(name.to_owned(), topic.clone());
        }
        Ok(topic)
    }

    fn compute(&self, name: &str) -> Result<String, RouteError> {
        let matches = self.regex.matches(name).map_err(|_| RouteError::RegexTooSlow)?;
        if !matches {
            return Ok(name.to_owned());
        }
        // Java asks for a match of all, then replaces the first match it finds, which can be a shorter one.
        let found = self.regex.find(name).map_err(|_| RouteError::RegexTooSlow)?;
        let Some(found) = found else { return Ok(name.to_owned()) };
        let mut topic = found.before().to_owned();
        append_replacement(&self.regex, &found, &self.replacement, &mut topic)
            .map_err(RouteError::Replacement)?;
        topic.push_str(found.after());
        Ok(topic)
    }
}

/// Java's `Matcher.appendReplacement`: `$1`, `${name}`, and a backslash that takes the next character as it is.
fn append_replacement(
    regex: &Regex,
    found: &Match<'_>,
    replacement: &str,
    out: &mut String,
) -> Result<(), String> {
    let mut rest = replacement.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => out.push(rest.next().ok_or("a backslash at the end escapes nothing")?),
            '$' => {
                let group = group_reference(regex, &mut rest)?;
                out.push_str(found.group(group).unwrap_or_default());
            }
            other => out.push(other),
        }
    }
    Ok(())
}

fn group_reference(
    regex: &Regex,
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<usize, String> {
    let first = *rest.peek().ok_or("the group is missing behind the last $")?;
    if first == '{' {
        rest.next();
        let name: String =
            std::iter::from_fn(|| rest.next_if(char::is_ascii_alphanumeric)).collect();
        if name.is_empty() || rest.next() != Some('}') {
            return Err("a group name is letters and digits between ${ and }".to_owned());
        }
        return regex
            .group_index(&name)
            .ok_or_else(|| format!("route.topic.regex has no group named {name}"));
    }
    let mut group =
        first.to_digit(10).ok_or("$ must be followed by a group's number or {name}")? as usize;
    rest.next();
    if group > regex.group_count() {
        return Err(format!("route.topic.regex has no group {group}"));
    }
    // Further digits belong to the number as long as there is such a group.
    while let Some(digit) = rest.peek().and_then(|next| next.to_digit(10)) {
        let longer = group * 10 + digit as usize;
        if longer > regex.group_count() {
            break;
        }
        group = longer;
        rest.next();
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(regex: &str, replacement: &str, name: &str, expected: &str) {
        let regex = Regex::new(regex).expect("a Java expression");
        let topic = TopicRouter::new(regex, replacement).topic(name).expect("a topic");
        assert_eq!(topic, expected);
    }

    fn check_refused(replacement: &str) {
        let regex = Regex::new("(?<routedByValue>.*)").expect("a Java expression");
        let topic = TopicRouter::new(regex, replacement).topic("Order");
        assert!(matches!(topic, Err(RouteError::Replacement(_))), "{topic:?}");
    }

    #[test]
    fn the_default_puts_the_value_behind_a_prefix() {
        check(
            "(?<routedByValue>.*)",
            "outbox.event.${routedByValue}",
            "Order",
            "outbox.event.Order",
        );
        check(
            "(?<routedByValue>.*)",
            "outbox.event.${routedByValue}",
            "a$1\\b",
            "outbox.event.a$1\\b",
        );
    }

    #[test]
    fn a_value_that_does_not_match_is_the_topic() {
        check("Foo(.*)", "bar.$1", "Order", "Order");
        check("(?<routedByValue>.*)", "t.${routedByValue}", "a\nb", "a\nb");
    }

    #[test]
    fn references_escapes_and_ambiguous_numbers_are_javas() {
        check("(?<r>.*)", "x.$1-$0", "Order", "x.Order-Order");
        check("(?<r>.*)", r"x\$1\\${r}", "Order", r"x$1\Order");
        check("(?<r>.*)", "t.$11", "Order", "t.Order1");
        check("(a)?(?<r>.*)", "[$1]${r}", "xbc", "[]xbc");
        check("a|ab", "X", "ab", "Xb");
    }

    #[test]
    fn a_reference_to_nothing_is_refused() {
        for replacement in ["x.${nope}", "x.$7", "x$", "x\\", "x${", "$-"] {
            check_refused(replacement);
        }
    }
}
