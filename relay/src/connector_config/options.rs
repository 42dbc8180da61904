//! Takes options out of a configuration one by one, so that what nobody took can be told at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::OptionError;

/// The options of one connector while they are being read. References in them are resolved, so it has no Debug.
pub(crate) struct Options<'a> {
    properties: &'a BTreeMap<String, String>,
    taken: BTreeSet<String>,
    errors: Vec<OptionError>,
    remarks: Vec<String>,
}

impl<'a> Options<'a> {
    pub(crate) const fn new(properties: &'a BTreeMap<String, String>) -> Self {
        Self { properties, taken: BTreeSet::new(), errors: Vec::new(), remarks: Vec::new() }
    }

    /// The option's text, trimmed as Connect does; an empty one counts as given.
    pub(crate) fn text(&mut self, option: &str) -> Option<String> {
        self.taken.insert(option.to_owned());
        self.properties.get(option).map(|value| value.trim().to_owned())
    }

    /// The first of several names that is given: the current one first, then older ones.
    pub(crate) fn text_of(&mut self, names: &[&str]) -> Option<String> {
        names.iter().fold(None, |found, name| {
            let text = self.text(name);
            found.or(text)
        })
    }

    pub(crate) fn required(&mut self, names: &[&str], what: &str) -> String {
        let text = self.text_of(names).filter(|text| !text.is_empty());
        text.unwrap_or_else(|| {
            self.refuse(names[0], None, format!("a value is required: {what}"));
            String::new()
        })
    }

    pub(crate) fn flag(&mut self, option: &str, default: bool) -> bool {
        match self.text(option).map(|text| text.to_ascii_lowercase()).as_deref() {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                let value = Some(other.to_owned());
                self.refuse(option, value, "it is either true or false".to_owned());
                default
            }
        }
    }

    pub(crate) fn number(&mut self, option: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(text) = self.text(option) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let message =
                    format!("it is a whole number from {} to {}", range.start(), range.end());
                self.refuse(option, Some(text), message);
                default
            }
        }
    }

    pub(crate) fn milliseconds(
        &mut self,
        option: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_millis(self.number(option, default, range))
    }

    /// One of several words, compared without regard to case, as Debezium does.
    pub(crate) fn choice<T: Copy>(&mut self, option: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(option) else { return default };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text))
        {
            return *value;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let message = format!("the relay supports {}", words.join(", "));
        self.refuse(option, Some(text), message);
        default
    }

    /// Options that start with `prefix`, without it; all of them count as taken.
    pub(crate) fn with_prefix(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let under: BTreeMap<String, String> = self
            .properties
            .iter()
            .filter_map(|(name, value)| {
                name.strip_prefix(prefix).map(|rest| (rest.to_owned(), value.clone()))
            })
            .collect();
        self.taken.extend(under.keys().map(|rest| format!("{prefix}{rest}")));
        under
    }

    /// The names of all options that are given.
    pub(crate) fn names(&self) -> Vec<String> {
        self.properties.keys().cloned().collect()
    }

    /// Lets another reader look at all options, and keeps its refusals.
    pub(crate) fn try_with<T>(
        &mut self,
        read: impl FnOnce(&BTreeMap<String, String>) -> Result<T, Vec<OptionError>>,
    ) -> Option<T> {
        read(self.properties).map_err(|errors| self.errors.extend(errors)).ok()
    }

    /// Lets another reader look at all options, whose refusals are of another kind.
    pub(crate) fn read_with<T>(&self, read: impl FnOnce(&BTreeMap<String, String>) -> T) -> T {
        read(self.properties)
    }

    /// Whether somebody has read an option.
    pub(super) fn is_taken(&self, option: &str) -> bool {
        self.taken.contains(option)
    }

    pub(crate) fn refuse(&mut self, option: &str, value: Option<String>, message: String) {
        self.errors.push(OptionError { option: option.to_owned(), value, message });
    }

    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All refusals, in the order in which they were found.
    pub(crate) fn finish(mut self) -> Result<Vec<String>, Vec<OptionError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        for name in self.properties.keys().filter(|name| !self.taken.contains(*name)) {
            self.remarks.push(format!("option `{name}` is not known here and has no effect"));
        }
        Ok(self.remarks)
    }
}
