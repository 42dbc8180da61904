//! Which changes become events, and what happens where one cannot.

use event_router::change::Operation;

use super::options::Options;
use crate::source::table_filter::Lists;

/// Operations by the letters of `skipped.operations`.
const OPERATIONS: [(&str, Operation); 5] = [
    ("r", Operation::Read),
    ("c", Operation::Create),
    ("u", Operation::Update),
    ("d", Operation::Delete),
    ("t", Operation::Truncate),
];

/// Debezium's default.
const SKIPPED_DEFAULT: &str = "t";

/// The word for no operation.
const NONE: &str = "none";

/// What becomes an event.
#[derive(Debug, Clone)]
pub struct EventConfig {
    /// `skipped.operations`.
    skipped: Vec<Operation>,
    /// `tombstones.on.delete`.
    pub tombstones: bool,
    /// `event.processing.failure.handling.mode`: a change that cannot be read.
    pub unreadable: Unreadable,
    /// `message.prefix.include.list` and `message.prefix.exclude.list`.
    messages: Lists,
}

/// What to do about a change whose values cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Stop.
    Fail,
    /// Leave it out and say so.
    Warn,
    /// Leave it out.
    Skip,
}

impl EventConfig {
    pub(super) fn parse(options: &mut Options<'_>) -> Self {
        let unreadable = [
            ("fail", Unreadable::Fail),
            ("warn", Unreadable::Warn),
            ("skip", Unreadable::Skip),
            // An older word for it.
            ("ignore", Unreadable::Skip),
        ];
        Self {
            skipped: skipped(options),
            tombstones: options.flag("tombstones.on.delete", true),
            unreadable: options.choice(
                "event.processing.failure.handling.mode",
                &unreadable,
                Unreadable::Fail,
            ),
            messages: Lists::parse(
                options,
                &["message.prefix.include.list"],
                &["message.prefix.exclude.list"],
            ),
        }
    }

    /// Whether changes of this kind are left out.
    #[must_use]
    pub fn skips(&self, operation: Operation) -> bool {
        self.skipped.contains(&operation)
    }

    /// Whether logical decoding messages with this prefix become events.
    #[must_use]
    pub fn passes_messages(&self, prefix: &str) -> bool {
        self.messages.pass(prefix)
    }
}

fn skipped(options: &mut Options<'_>) -> Vec<Operation> {
    const OPTION: &str = "skipped.operations";
    let text = options.text(OPTION).unwrap_or_else(|| SKIPPED_DEFAULT.to_owned());
    if text.eq_ignore_ascii_case(NONE) {
        return Vec::new();
    }
    let mut skipped = Vec::new();
    for word in text.split(',').map(str::trim) {
        match OPERATIONS.iter().find(|(letter, _)| *letter == word) {
            Some((_, operation)) => skipped.push(*operation),
            None => {
                let message = if word == NONE {
                    "'none' cannot be specified with other skipped operation types"
                } else {
                    "Invalid operation: it is none, or a list of c, u, d, t and r"
                };
                options.refuse(OPTION, Some(text.clone()), message.to_owned());
                break;
            }
        }
    }
    skipped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<EventConfig, Vec<String>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let events = EventConfig::parse(&mut options);
        match options.finish() {
            Ok(_) => Ok(events),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn truncates_are_skipped_unless_something_else_is_said() {
        let default = parse(&[]).unwrap();
        assert!(default.skips(Operation::Truncate) && !default.skips(Operation::Delete));
        assert!(default.tombstones);
        assert!(default.passes_messages("any"));
        let none = parse(&[("skipped.operations", "none")]).unwrap();
        assert!(!none.skips(Operation::Truncate));
        let some = parse(&[("skipped.operations", " u , d")]).unwrap();
        assert!(some.skips(Operation::Update) && some.skips(Operation::Delete));
        assert!(!some.skips(Operation::Truncate) && !some.skips(Operation::Create));
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for words in ["x", "u,none", ""] {
            assert_eq!(
                parse(&[("skipped.operations", words)]).unwrap_err(),
                ["skipped.operations"]
            );
        }
        let word = [("event.processing.failure.handling.mode", "stop")];
        assert_eq!(parse(&word).unwrap_err(), ["event.processing.failure.handling.mode"]);
    }

    #[test]
    fn messages_are_chosen_by_their_prefix() {
        let included = parse(&[("message.prefix.include.list", "order, inv.*")]).unwrap();
        assert!(included.passes_messages("Invoice") && !included.passes_messages("orders"));
        let excluded = parse(&[("message.prefix.exclude.list", "fo.*")]).unwrap();
        assert!(!excluded.passes_messages("foo") && excluded.passes_messages("bar"));
    }
}
