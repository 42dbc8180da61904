//! Connector files named by `CONNECTORS`: read before anything starts, registered when absent.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::herder::Herder;
use super::rest::body::{CreateRequest, create_request};
use super::rest::name_config;
use super::validation;
use crate::config::{WorkerConfig, variable};

/// Reads and checks all connector files.
pub(super) fn load(worker: &WorkerConfig) -> anyhow::Result<Vec<CreateRequest>> {
    let mut requests: Vec<CreateRequest> = Vec::new();
    for path in &worker.connector_files {
        let what = || format!("{}: {}", variable::CONNECTORS, path.display());
        let text = std::fs::read(path).with_context(what)?;
        let mut request = create_request(&text).with_context(what)?;
        if request.name.is_empty() {
            bail!("{}: no \"name\"; write {{\"name\": ..., \"config\": {{...}}}}", what());
        }
        if requests.iter().any(|other| other.name == request.name) {
            bail!("{}: connector {} is in another file as well", what(), request.name);
        }
        name_config(&request.name, &mut request.config).with_context(what)?;
        validation::check_class(&request.config, false).with_context(what)?;
        let checked = validation::check(&request.config, worker);
        if !checked.errors.is_empty() {
            return Err(validation::refusal(&checked.errors)).with_context(what);
        }
        requests.push(request);
    }
    Ok(requests)
}

/// Registers what is not there yet. The databases are not asked: their tasks wait for them.
pub(super) async fn register(herder: &Arc<Herder>, requests: Vec<CreateRequest>) {
    for CreateRequest { name, config, initial_state } in requests {
        let _turn = herder.turn.lock().await;
        if herder.properties(&name).is_ok() {
            tracing::info!(
                connector.name = name,
                "connector of the file list is registered already"
            );
            continue;
        }
        match herder.store(&name, &config, initial_state).await {
            Ok(()) => tracing::info!(connector.name = name, "connector registered from its file"),
            Err(error) => {
                tracing::error!(connector.name = name, %error, "connector of the file list not registered");
            }
        }
    }
}
