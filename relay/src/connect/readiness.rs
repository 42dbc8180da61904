//! `GET /health/ready`: whether events flow, as far as they are meant to on this worker. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::health::State;

/// For how long the stream may bring nothing although the server has written WAL. Above the interval of the looks at the
/// slot and of a server's keepalives together, several times.
pub(super) const STREAM_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Status and body. One connector that should work and does not makes the worker unready; one that stands by does not, nor one
/// that is paused, as long as its slot keeps to its budget.
pub(super) fn answer(connectors: &[(String, State)], registered: usize) -> (u16, Value) {
    let mut roles = Map::new();
    let mut is_ready = true;
    for (name, state) in connectors {
        let mut told = json!({"role": state.role.word()});
        if let Some(reason) = state.unready(STREAM_SILENCE_MAX) {
            is_ready = false;
            told["reason"] = json!(reason);
        }
        roles.insert(name.clone(), told);
    }
    let (status, word) = if is_ready { (200, "ready") } else { (503, "not ready") };
    (status, json!({"status": word, "connectors": registered, "roles": roles}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Role};

    fn ready(role: Role) -> (u16, Value) {
        let health = Health::default();
        health.begin(role);
        answer(&[("c".to_owned(), health.look())], 1)
    }

    #[test]
    fn a_connector_that_streams_stands_by_or_is_not_meant_to_work_is_ready() {
        let reason = String::new;
        for role in
            [Role::Streaming, Role::StandingBy { reason: reason() }, Role::Idle, Role::Paused]
        {
            let word = role.word();
            let expected =
                json!({"status": "ready", "connectors": 1, "roles": {"c": {"role": word}}});
            assert_eq!(ready(role), (200, expected));
        }
        assert_eq!(answer(&[], 0).0, 200);
    }

    #[test]
    fn a_connector_that_should_work_and_does_not_makes_the_worker_unready_and_says_why() {
        let reason = "cannot connect".to_owned();
        for role in
            [Role::Starting, Role::Waiting { reason: reason.clone() }, Role::Failed { reason }]
        {
            let (status, body) = ready(role);
            assert_eq!((status, &body["status"]), (503, &json!("not ready")));
            assert!(body["roles"]["c"]["reason"].is_string(), "{body}");
        }
    }
}
