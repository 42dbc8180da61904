//! What must be true of the scenario, counted; what did not hold is named at the end.

use serde_json::Value;

use crate::screen::Screen;

#[derive(Debug, Default)]
pub(crate) struct Checks {
    held: usize,
    failed: Vec<String>,
}

impl Checks {
    pub(crate) fn expect(&mut self, what: &str, holds: bool, found: impl FnOnce() -> String) {
        if holds {
            self.held += 1;
        } else {
            self.failed.push(format!("{what}; found: {}", found()));
        }
    }

    /// Compares JSON by value: the order of keys and the spelling of numbers (39.980) do not matter.
    pub(crate) fn expect_json(&mut self, what: &str, expected: &Value, found: &str) {
        let parsed = serde_json::from_str::<Value>(found).ok();
        self.expect(what, parsed.as_ref() == Some(expected), || {
            format!("{found}, instead of {expected}")
        });
    }

    /// A wait for a hop that never came.
    pub(crate) fn missing(&mut self, error: &anyhow::Error) {
        self.failed.push(format!("{error:#}"));
    }

    /// Prints the result and returns whether everything held.
    pub(crate) fn conclude(&self, screen: Screen) -> bool {
        for failure in &self.failed {
            screen.bad(failure);
        }
        if self.failed.is_empty() {
            screen.good(&format!(
                "{} checks: every key, header and payload is exact, one shipment, no duplicate",
                self.held
            ));
        }
        self.failed.is_empty() && self.held > 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_compared_by_value_and_a_difference_fails() {
        let mut checks = Checks::default();
        checks.expect_json("same", &json!({"a": 1, "b": [39.98]}), r#"{"b":[39.980],"a":1}"#);
        assert!(checks.conclude(Screen::new(true)));
        checks.expect_json("other", &json!({"a": 1}), r#"{"a":"1"}"#);
        assert!(!checks.conclude(Screen::new(true)));
    }

    #[test]
    fn nothing_checked_is_no_success() {
        assert!(!Checks::default().conclude(Screen::new(true)));
    }
}
