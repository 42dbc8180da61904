//! What the REST API does with connectors: one arm per method and resource, each one call of the herder.

use std::sync::Arc;

use serde_json::{Map, json};

use super::super::dead_letters::{LIST_DEFAULT, LIST_MAX};
use super::super::definitions;
use super::super::error::ConnectError;
use super::super::herder::Herder;
use super::super::plugins;
use super::super::storage::{Properties, logger_record};
use super::super::validation;
use super::Call;
use super::answer::{self, Answer};
use super::body;
use super::request;
use super::routes::Resource;

type Answered = Result<Answer, ConnectError>;

/// Answers a call whose path, method and media types have been checked.
pub(super) async fn answer(herder: &Arc<Herder>, call: &Call) -> Answered {
    match (call.method.as_str(), &call.resource) {
        ("GET", Resource::Root) => Ok(root(herder)),
        ("GET", Resource::Connectors) => Ok(list(herder, call)),
        ("POST", Resource::Connectors) => create(herder, call).await,
        ("GET", Resource::Connector(name)) => Ok(answer::json(&herder.info(name)?)),
        ("DELETE", Resource::Connector(name)) => {
            herder.delete(name).await?;
            Ok(answer::empty(204))
        }
        ("GET", Resource::Config(name)) => {
            Ok(answer::json(&herder.shown(&herder.properties(name)?)))
        }
        ("PUT", Resource::Config(name)) => put_config(herder, call, name).await,
        ("PATCH", Resource::Config(name)) => {
            let patch = body::properties(&call.body)?;
            Ok(answer::json(&herder.patch(name, patch).await?))
        }
        ("GET", Resource::Status(name)) => Ok(answer::json(&herder.status(name)?)),
        ("POST", Resource::Restart(name)) => restart(herder, call, name).await,
        ("PUT", Resource::Stop(name)) => {
            herder.stop_connector(name).await?;
            Ok(answer::empty(204))
        }
        ("PUT", Resource::Pause(name)) => {
            herder.pause(name).await?;
            Ok(answer::empty(202))
        }
        ("PUT", Resource::Resume(name)) => {
            herder.resume(name).await?;
            Ok(answer::empty(202))
        }
        ("GET", Resource::Tasks(name)) => Ok(answer::json(&herder.tasks(name)?)),
        ("GET", Resource::TaskStatus(name, task)) => match task.parse() {
            Ok(task) => Ok(answer::json(&herder.task_status(name, task)?)),
            Err(_) => Ok(answer::matched(404)),
        },
        ("POST", Resource::TaskRestart(name, task)) => match task.parse() {
            Ok(task) => {
                herder.restart_task(name, task).await?;
                Ok(answer::empty(204))
            }
            Err(_) => Ok(answer::matched(404)),
        },
        // Between the workers of a Connect cluster, signed with a key that this worker never uses.
        ("POST", Resource::Tasks(_)) | ("PUT", Resource::Fence(_)) => {
            Err(ConnectError::bad_request("Internal request missing required signature"))
        }
        _ => more(herder, call).await,
    }
}

async fn more(herder: &Arc<Herder>, call: &Call) -> Answered {
    match (call.method.as_str(), &call.resource) {
        ("GET", Resource::Offsets(name)) => Ok(answer::json(&herder.offsets(name)?)),
        ("PATCH", Resource::Offsets(name)) => {
            herder.alter_offsets(name, body::offsets(&call.body)?).await?;
            Ok(offsets_message("altered"))
        }
        ("DELETE", Resource::Offsets(name)) => {
            herder.reset_offsets(name).await?;
            Ok(offsets_message("reset"))
        }
        ("GET", Resource::Topics(name)) => Ok(answer::json(&herder.topics(name)?)),
        ("PUT", Resource::TopicsReset(name)) => {
            herder.reset_topics(name)?;
            Ok(answer::empty(202))
        }
        ("GET", Resource::DeadLetters(name)) => {
            let limit = letters_limit(call)?;
            Ok(answer::json(&herder.dead_letters(name, limit).await?))
        }
        ("POST", Resource::DeadLettersReplay(name)) => {
            Ok(match herder.replay_dead_letters(name).await? {
                Some(summary) => answer::json(&summary),
                None => answer::json_with(202, &json!({"complete": false})),
            })
        }
        ("GET", Resource::Plugins) => {
            let flags = request::query_values(call.query(), "connectorsOnly");
            let only = flags.first().is_none_or(|flag| flag.eq_ignore_ascii_case("true"));
            Ok(answer::json(&plugins::list(only)))
        }
        ("GET", Resource::PluginConfig(plugin)) => match definitions::of_plugin(plugin) {
            Some(options) => Ok(answer::json(&options)),
            None => Err(ConnectError::not_found(format!("Unknown plugin {plugin}."))),
        },
        ("PUT", Resource::PluginValidate(plugin)) => validate(herder, call, plugin).await,
        ("GET", Resource::Loggers) => Ok(answer::json(&herder.log_levels.all())),
        ("GET", Resource::Logger(name)) => Ok(answer::json(&herder.log_levels.get(name)?)),
        ("PUT", Resource::Logger(name)) => set_level(herder, call, name).await,
        _ => Ok(answer::matched(404)),
    }
}

fn root(herder: &Herder) -> Answer {
    answer::json(&json!({
        "version": plugins::CONNECT_VERSION,
        "commit": concat!("relay-", env!("CARGO_PKG_VERSION")),
        "kafka_cluster_id": herder.storage.cluster_id(),
    }))
}

fn list(herder: &Herder, call: &Call) -> Answer {
    let wanted = request::query_values(call.query(), "expand");
    if wanted.is_empty() {
        return answer::json(&herder.names());
    }
    let mut all = Map::new();
    for name in herder.names() {
        let mut shown = Map::new();
        for expansion in &wanted {
            let value = match expansion.as_str() {
                "info" => herder.info(&name).map(|info| json!(info)),
                "status" => herder.status(&name).map(|status| json!(status)),
                _ => continue,
            };
            // It may have gone meanwhile, or have no status yet.
            if let Ok(value) = value {
                shown.insert(expansion.clone(), value);
            }
        }
        all.insert(name, shown.into());
    }
    answer::json(&all)
}

async fn create(herder: &Herder, call: &Call) -> Answered {
    let mut request = body::create_request(&call.body)?;
    name_config(&request.name, &mut request.config)?;
    let created = herder.put(&request.name, request.config, request.initial_state, false);
    let (_, info) = created.await?;
    Ok(answer::created(&call.location(herder, &request.name), &info))
}

async fn put_config(herder: &Herder, call: &Call, name: &str) -> Answered {
    let mut config = body::properties(&call.body)?;
    name_config(name, &mut config)?;
    let (created, info) = herder.put(name, config, None, true).await?;
    Ok(match created {
        true => answer::created(&call.location(herder, name), &info),
        false => answer::json(&info),
    })
}

/// The configuration carries the connector's name; another one in it is a mistake.
pub(in crate::connect) fn name_config(
    name: &str,
    config: &mut Properties,
) -> Result<(), ConnectError> {
    match config.get("name").and_then(Option::as_deref) {
        Some(inner) if inner != name => Err(ConnectError::bad_request(format!(
            "Connector name configuration ({inner}) doesn't match connector name in the URL ({name})"
        ))),
        Some(_) => Ok(()),
        None => {
            config.insert("name".to_owned(), Some(name.to_owned()));
            Ok(())
        }
    }
}

async fn validate(herder: &Herder, call: &Call, plugin: &str) -> Answered {
    let properties = body::properties(&call.body)?;
    let class = properties.get("connector.class").and_then(Option::as_deref);
    if let Some(class) = class.filter(|class| !plugins::same_connector(class, plugin)) {
        return Err(ConnectError::bad_request(format!(
            "Included connector type {class} does not match request type {plugin}"
        )));
    }
    // Kafka Connect wraps what it finds at this point.
    validation::check_class(&properties, herder.worker.show_passwords).map_err(|error| {
        ConnectError::internal(format!(
            "org.apache.kafka.connect.runtime.rest.errors.BadRequestException: {error}"
        ))
    })?;
    let errors = validation::check_with_database(&properties, &herder.worker).await;
    Ok(answer::json(&definitions::validation(&properties, &errors)))
}

async fn restart(herder: &Herder, call: &Call, name: &str) -> Answered {
    let include_tasks = request::query_flag(call.query(), "includeTasks");
    let only_failed = request::query_flag(call.query(), "onlyFailed");
    if include_tasks || only_failed {
        let status = herder.restart_all(name, include_tasks, only_failed).await?;
        return Ok(answer::json_with(202, &status));
    }
    herder.restart(name)?;
    Ok(answer::empty(204))
}

/// How many dead letters a caller wants to see.
fn letters_limit(call: &Call) -> Result<usize, ConnectError> {
    let given = request::query_values(call.query(), "limit");
    let Some(text) = given.first() else { return Ok(LIST_DEFAULT) };
    text.parse().ok().filter(|limit| *limit <= LIST_MAX).ok_or_else(|| {
        ConnectError::bad_request(format!("limit is a whole number from 0 to {LIST_MAX}"))
    })
}

fn offsets_message(done: &str) -> Answer {
    answer::json(&json!({"message": format!(
        "The Connect framework-managed offsets for this connector have been {done} successfully. However, if this \
         connector manages offsets externally, they will need to be manually {done} in the system that the connector \
         uses."
    )}))
}

async fn set_level(herder: &Herder, call: &Call, name: &str) -> Answered {
    let level = body::level(&call.body)?;
    let scopes = request::query_values(call.query(), "scope");
    if scopes.first().is_some_and(|scope| scope.eq_ignore_ascii_case("cluster")) {
        herder.log_levels.check(&level)?;
        herder.write(logger_record(name, &level.to_ascii_uppercase())).await?;
        return Ok(answer::empty(204));
    }
    Ok(answer::json(&herder.log_levels.set(name, &level)?))
}
