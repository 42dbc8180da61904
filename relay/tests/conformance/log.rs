//! Keeps what the transforms log, by connector: the vectors say how often and how loud.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use relay::events::TRANSFORMS_LOG;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Field with the connector's name.
const CONNECTOR_NAME: &str = "connector.name";

static LINES: LazyLock<Mutex<HashMap<String, Vec<&'static str>>>> = LazyLock::new(Mutex::default);

/// Begins to keep lines.
pub(crate) fn keep() -> Result<(), TryInitError> {
    tracing_subscriber::registry().with(Keeper).try_init()
}

/// Levels of the lines that a connector's transforms have logged, in order.
pub(crate) fn lines_of(connector: &str) -> Vec<&'static str> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).remove(connector).unwrap_or_default()
}

struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            _ => return,
        };
        if event.metadata().target() == TRANSFORMS_LOG {
            let mut connector = ConnectorName::default();
            event.record(&mut connector);
            let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
            lines.entry(connector.0).or_default().push(level);
        }
    }
}

#[derive(Default)]
struct ConnectorName(String);

impl Visit for ConnectorName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == CONNECTOR_NAME {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
