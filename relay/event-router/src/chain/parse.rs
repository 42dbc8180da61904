//! Reads a chain from a connector's options.

use std::collections::BTreeMap;

use super::enveloped::Enveloped;
use super::message_content::{self, MessageContent};
use super::{Chain, Step, StepKind};
use crate::options::{InvalidOption, OptionWarning, RouterOptions};
use crate::router::Router;
use crate::transform::{EVENT_ROUTER, FILTER, Predicate, Transform, is};

/// The transform of the example of 2019, which the example built itself.
const LEGACY_ROUTER: &str = "io.debezium.examples.outbox.routingsmt.EventRouter";

/// Connect's own options of a transform.
const CONNECT_OPTIONS: [&str; 3] = ["type", "predicate", "negate"];

pub(super) fn parse(
    properties: &BTreeMap<String, String>,
) -> Result<(Chain, Vec<OptionWarning>), Vec<InvalidOption>> {
    let mut reader = Reader {
        properties,
        problems: Vec::new(),
        warnings: Vec::new(),
        predicates: BTreeMap::new(),
    };
    for alias in reader.list("predicates") {
        if let Some(predicate) = reader.predicate(&alias) {
            reader.predicates.insert(alias, predicate);
        }
    }
    let steps = reader.list("transforms");
    let steps: Vec<_> = steps.iter().filter_map(|alias| reader.step(alias)).collect();
    if reader.problems.is_empty() {
        Ok((Chain { steps, warnings: Vec::new() }, reader.warnings))
    } else {
        Err(reader.problems)
    }
}

struct Reader<'p> {
    properties: &'p BTreeMap<String, String>,
    problems: Vec<InvalidOption>,
    warnings: Vec<OptionWarning>,
    predicates: BTreeMap<String, Predicate>,
}

impl Reader<'_> {
    fn list(&mut self, option: &str) -> Vec<String> {
        let names = self.properties.get(option).map(String::as_str).unwrap_or_default();
        let names: Vec<String> = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names.iter().enumerate().any(|(index, name)| names[..index].contains(name)) {
            self.refuse(option, "Duplicate alias provided.".to_owned());
        }
        names
    }

    fn refuse(&mut self, option: &str, message: String) {
        let value = self.properties.get(option).cloned();
        self.problems.push(InvalidOption { option: option.to_owned(), value, message });
    }

    /// A switch that is off unless it is turned on.
    fn flag(&mut self, option: &str) -> bool {
        let text = self.properties.get(option).map(|text| text.trim().to_ascii_lowercase());
        match text.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.refuse(option, "Expected value to be either true or false".to_owned());
                false
            }
        }
    }

    fn own_options(&self, prefix: &str) -> BTreeMap<String, String> {
        let own = |(name, value): (&String, &String)| {
            name.strip_prefix(prefix).map(|name| (name.to_owned(), value.clone()))
        };
        self.properties.iter().filter_map(own).collect()
    }

    /// The value of an option, or a problem with it, under its full name.
    fn keep<T>(&mut self, prefix: &str, result: Result<T, Vec<InvalidOption>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problems) => {
                let full = problems.into_iter().map(|problem| InvalidOption {
                    option: format!("{prefix}{}", problem.option),
                    ..problem
                });
                self.problems.extend(full);
                None
            }
        }
    }

    fn class(&mut self, prefix: &str) -> Option<String> {
        let option = format!("{prefix}type");
        let class = self.properties.get(&option).cloned();
        if class.is_none() {
            let message =
                format!("Missing required configuration \"{option}\" which has no default value.");
            self.refuse(&option, message);
        }
        class
    }

    fn unsupported(&mut self, prefix: &str, class: &str, supported: &str) {
        let option = format!("{prefix}type");
        let message = format!(
            "Invalid value {class} for configuration {option}: Class {class} could not be found. Supported are \
             {supported}"
        );
        self.refuse(&option, message);
    }

    fn predicate(&mut self, alias: &str) -> Option<Predicate> {
        let prefix = format!("predicates.{alias}.");
        let class = self.class(&prefix)?;
        let parsed = Predicate::parse(&class, &self.own_options(&prefix));
        let predicate = self.keep(&prefix, parsed)?;
        if predicate.is_none() {
            self.unsupported(&prefix, &class, "TopicNameMatches, RecordIsTombstone, HasHeaderKey");
        }
        predicate
    }

    fn step(&mut self, alias: &str) -> Option<Step> {
        let prefix = format!("transforms.{alias}.");
        let class = self.class(&prefix)?;
        let mut own = self.own_options(&prefix);
        let predicate = own.get("predicate").cloned();
        for option in CONNECT_OPTIONS {
            own.remove(option);
        }
        let kind = self.kind(&prefix, &class, &own);
        let predicate = match predicate {
            None => None,
            Some(name) => {
                let found = self.predicates.get(&name).cloned();
                if found.is_none() {
                    let message = format!("no predicate named {name} is in `predicates`");
                    self.refuse(&format!("{prefix}predicate"), message);
                }
                Some(found?)
            }
        };
        let negate = self.flag(&format!("{prefix}negate"));
        Some(Step { predicate, negate, kind: kind? })
    }

    fn kind(
        &mut self,
        prefix: &str,
        class: &str,
        own: &BTreeMap<String, String>,
    ) -> Option<StepKind> {
        if class == EVENT_ROUTER || class == "EventRouter" {
            let (options, warnings) = self.keep(prefix, RouterOptions::parse(own))?;
            self.warnings.extend(warnings.into_iter().map(|warning| OptionWarning {
                option: format!("{prefix}{}", warning.option),
                message: warning.message,
            }));
            let router = Box::new(Router::new(options));
            return Some(StepKind::Router(router, Enveloped::default()));
        }
        if is(class, FILTER) {
            return Some(StepKind::Filter);
        }
        if class == LEGACY_ROUTER {
            return Some(StepKind::Legacy);
        }
        if class == message_content::CLASS || message_content::CLASS.ends_with(&format!(".{class}"))
        {
            let option = format!("{prefix}{}", message_content::NULL_INCLUDE);
            let keeps_nulls = self.flag(&option);
            return Some(StepKind::Messages(MessageContent::new(keeps_nulls)));
        }
        let transform = self.keep(prefix, Transform::parse(class, own))?;
        if transform.is_none() {
            let supported = format!(
                "{EVENT_ROUTER}, RegexRouter, InsertHeader, DropHeaders, Filter, {}",
                message_content::CLASS
            );
            self.unsupported(prefix, class, &supported);
        }
        transform.map(StepKind::Other)
    }
}
