//! `transforms`: the router and what stands around it, each with its predicate, in the order of the option.

mod enveloped;
mod legacy;
mod message_content;
mod parse;

use std::collections::BTreeMap;
use std::sync::Arc;

use enveloped::Enveloped;
use legacy::route_like_2019;
use message_content::MessageContent;

use crate::data::{Schema, Value};
use crate::envelope::{RawChange, change_event};
use crate::event::{Header, Outcome, RouteError, RoutedEvent, Skipped, Warning};
use crate::options::{InvalidOption, OptionWarning};
use crate::router::Router;
use crate::tracing::RandomBits;
use crate::transform::{Predicate, Transform};

/// A chain of transforms.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    steps: Vec<Step>,
    /// Of the change that is on its way.
    warnings: Vec<Warning>,
}

#[derive(Debug, Clone)]
struct Step {
    predicate: Option<Predicate>,
    negate: bool,
    kind: StepKind,
}

#[derive(Debug, Clone)]
enum StepKind {
    Router(Box<Router>, Enveloped),
    /// The transform of the example of 2019.
    Legacy,
    /// Makes rows of messages.
    Messages(MessageContent),
    /// Leaves out what it is given.
    Filter,
    Other(Transform),
}

/// What enters the chain.
pub enum Input<'c, 'a> {
    /// A change of a table.
    Change(RawChange<'c, 'a>),
    /// A tombstone, a message, a heartbeat: anything but a change.
    Event(Box<RoutedEvent<'a>>),
}

/// What leaves it, with what should be logged on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Output<'a> {
    /// The event to be sent; none where it was left out.
    pub event: Option<Box<RoutedEvent<'a>>>,
    /// Why a change was left out.
    pub skipped: Option<Skipped>,
    /// Lines for the log.
    pub warnings: Vec<Warning>,
}

/// Where an event would go, as far as that can be told of a change that fails on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Address<'a> {
    /// The topic, where the routing column tells it.
    pub topic: Option<String>,
    /// Schema of the key.
    pub key_schema: Option<Arc<Schema>>,
    /// The key.
    pub key: Value<'a>,
}

/// What came through, or why nothing did.
type Passed<'a> = (Option<Box<RoutedEvent<'a>>>, Option<Skipped>);

impl Chain {
    /// Reads `transforms`, `transforms.*` and `predicates.*` of a connector's options. Names in problems and warnings
    /// are full ones.
    ///
    /// # Errors
    /// Every option that cannot be taken, and every class that is not supported.
    pub fn parse(
        properties: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<OptionWarning>), Vec<InvalidOption>> {
        parse::parse(properties)
    }

    /// Lets routers write expanded payloads as JSON at once; see [`Router::write_json`]. None of the supported
    /// transforms looks into values.
    #[must_use]
    pub fn write_json(mut self, write_json: bool) -> Self {
        for step in &mut self.steps {
            if let StepKind::Router(router, _) = &mut step.kind {
                router.set_write_json(write_json);
            }
        }
        self
    }

    /// Lets routers write tracing headers, whose ids are made of these random bits: what Debezium does where
    /// OpenTelemetry's SDK is on its class path, and nowhere else.
    #[must_use]
    pub fn tracing(mut self, random: RandomBits) -> Self {
        for step in &mut self.steps {
            if let StepKind::Router(router, _) = &mut step.kind {
                router.set_tracing(random);
            }
        }
        self
    }

    /// Whether a router for all records comes first: then a deleted row and its tombstone make no event, whatever
    /// follows.
    #[must_use]
    pub fn begins_with_router(&self) -> bool {
        self.steps.first().is_some_and(|step| {
            step.predicate.is_none() && matches!(step.kind, StepKind::Router(..))
        })
    }

    /// What was to be logged of a change that then failed.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        let mut warnings = std::mem::take(&mut self.warnings);
        for step in &mut self.steps {
            if let StepKind::Router(router, _) = &mut step.kind {
                warnings.append(&mut router.take_warnings());
            }
        }
        warnings
    }

    /// Sends a change or an event through the chain.
    ///
    /// # Errors
    /// When a transform fails, which stops the task in Connect.
    pub fn apply<'a>(&mut self, input: Input<'_, 'a>) -> Result<Output<'a>, RouteError> {
        self.warnings.clear();
        let (event, skipped) = self.pass(input)?;
        Ok(Output { event, skipped, warnings: std::mem::take(&mut self.warnings) })
    }

    /// Where the first router that a change meets would send it, whatever else is wrong with it; none where no router
    /// takes it, or its key cannot be read.
    pub fn address<'a>(&mut self, input: &Input<'_, 'a>) -> Option<Address<'a>> {
        let Input::Change(raw) = input else { return None };
        self.steps.iter_mut().find_map(|step| match step.chooses(input) {
            Ok(true) => match &mut step.kind {
                StepKind::Router(router, _) => router.address(&raw.change),
                _ => None,
            },
            _ => None,
        })
    }

    fn pass<'a>(&mut self, input: Input<'_, 'a>) -> Result<Passed<'a>, RouteError> {
        let mut input = input;
        for step in &mut self.steps {
            if !step.chooses(&input)? {
                continue;
            }
            let event = match (&mut step.kind, input) {
                (StepKind::Router(router, _), Input::Change(raw)) => {
                    match router.route(raw.change)? {
                        Outcome::Skipped(skipped) => return Ok((None, Some(skipped))),
                        Outcome::Routed(event, more) => {
                            self.warnings.extend(more);
                            event
                        }
                    }
                }
                // The router drops tombstones and lets everything else pass that is no change.
                (StepKind::Router(..), Input::Event(event)) if event.value.is_null() => {
                    return Ok((None, None));
                }
                (StepKind::Router(router, enveloped), Input::Event(event)) => {
                    match enveloped.unwrap(event) {
                        Err(event) => event,
                        Ok(mut unwrapped) => match router.route(unwrapped.change())? {
                            Outcome::Skipped(skipped) => return Ok((None, Some(skipped))),
                            Outcome::Routed(event, more) => {
                                self.warnings.extend(more);
                                event
                            }
                        },
                    }
                }
                (StepKind::Legacy, Input::Event(event)) => event,
                // A change is no message: it need not become an event for this.
                (StepKind::Messages(_), change @ Input::Change(_)) => {
                    input = change;
                    continue;
                }
                (StepKind::Messages(messages), Input::Event(mut event)) => {
                    messages.apply(&mut event)?;
                    event
                }
                (StepKind::Legacy, Input::Change(raw)) => match route_like_2019(raw.change)? {
                    Some(event) => Box::new(event),
                    None => return Ok((None, Some(Skipped::Delete))),
                },
                (StepKind::Filter, _) => return Ok((None, None)),
                (StepKind::Other(transform), input) => {
                    let mut event = input.into_event()?;
                    transform.apply(&mut event)?;
                    event
                }
            };
            input = Input::Event(event);
        }
        Ok((Some(input.into_event()?), None))
    }
}

impl Step {
    fn chooses(&self, input: &Input<'_, '_>) -> Result<bool, RouteError> {
        let Some(predicate) = &self.predicate else { return Ok(true) };
        let (topic, is_tombstone, headers): (&str, bool, &[Header<'_>]) = match input {
            Input::Change(raw) => (raw.envelope.topic(), false, &raw.change.headers),
            Input::Event(event) => (&event.topic, event.value.is_null(), &event.headers),
        };
        Ok(predicate.test(topic, is_tombstone, headers)? != self.negate)
    }
}

impl<'a> Input<'_, 'a> {
    fn into_event(self) -> Result<Box<RoutedEvent<'a>>, RouteError> {
        match self {
            Self::Change(raw) => Ok(Box::new(change_event(raw)?)),
            Self::Event(event) => Ok(event),
        }
    }
}

#[cfg(test)]
mod tests;
