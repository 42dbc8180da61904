//! `transforms` and `predicates`: the chain that a change goes through.

use event_router::chain::Chain;

use super::options::Options;
use crate::config::WorkerConfig;

/// Where no option of these names is left to anybody else.
const PREFIXES: [&str; 2] = ["transforms.", "predicates."];

/// Variable with which Debezium's image puts OpenTelemetry's SDK on the class path: the router then writes tracing
/// headers.
const ENABLE_OTEL: &str = "ENABLE_OTEL";

/// Reads the chain; `None` when it was refused.
pub(super) fn read(options: &mut Options<'_>, worker: &WorkerConfig) -> Option<Chain> {
    for prefix in PREFIXES {
        options.with_prefix(prefix);
    }
    let transforms = options.text("transforms");
    options.text("predicates");
    let parsed = options.read_with(Chain::parse);
    match parsed {
        Ok((chain, warnings)) => {
            for warning in warnings {
                options.remark(format!("`{}`: {}", warning.option, warning.message));
            }
            if transforms.is_none_or(|transforms| transforms.is_empty()) {
                let remark = "no transform is given: changes are published as they are, each table to a topic of its \
                              own";
                options.remark(remark.to_owned());
            }
            let traces =
                worker.environment.get(ENABLE_OTEL).is_some_and(|enabled| enabled == "true");
            Some(if traces { chain.tracing(random_bits) } else { chain })
        }
        Err(problems) => {
            for problem in problems {
                options.refuse(&problem.option, problem.value, problem.message);
            }
            None
        }
    }
}

fn random_bits() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ROUTER_CLASS: &str = "io.debezium.transforms.outbox.EventRouter";

    fn read_all(given: &[(&str, &str)]) -> Result<Vec<String>, Vec<String>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let chain = read(&mut options, &WorkerConfig::default());
        let read = options
            .finish()
            .map_err(|errors| errors.into_iter().map(|error| error.option).collect::<Vec<_>>());
        assert_eq!(chain.is_some(), read.is_ok());
        read
    }

    #[test]
    fn any_alias_names_the_router() {
        let remarks = read_all(&[("transforms", "any"), ("transforms.any.type", ROUTER_CLASS)]);
        assert_eq!(remarks.unwrap(), [""; 0]);
    }

    #[test]
    fn without_a_router_the_relay_says_what_it_will_publish() {
        assert_eq!(read_all(&[]).unwrap().len(), 1);
    }

    #[test]
    fn what_the_relay_does_not_have_is_refused_by_name() {
        let refused = |given: &[(&str, &str)]| read_all(given).unwrap_err();
        assert_eq!(refused(&[("transforms", "a")]), ["transforms.a.type"]);
        let other = [("transforms", "a"), ("transforms.a.type", "com.example.Own")];
        assert_eq!(refused(&other), ["transforms.a.type"]);
        let router = [("transforms", "a"), ("transforms.a.type", ROUTER_CLASS)];
        let with = |option| [router[0], router[1], option];
        assert_eq!(
            refused(&with(("transforms.a.predicate", "isOutbox"))),
            ["transforms.a.predicate"]
        );
        assert_eq!(
            refused(&with(("transforms.a.route.topic.regex", "("))),
            ["transforms.a.route.topic.regex"]
        );
    }
}
