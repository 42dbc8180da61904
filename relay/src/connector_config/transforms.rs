//! `transforms`: the chain of transforms, of which the relay has the Outbox Event Router.

use event_router::RouterOptions;

use super::options::Options;

/// Debezium's class.
const ROUTER_CLASS: &str = "io.debezium.transforms.outbox.EventRouter";

/// Options of any transform, beside its own.
const PREDICATE_OPTIONS: [&str; 2] = ["predicate", "negate"];

/// Reads the chain; `None` when it was refused.
pub(super) fn read(options: &mut Options<'_>) -> Option<RouterOptions> {
    let chain = options.text("transforms").unwrap_or_default();
    let aliases: Vec<&str> =
        chain.split(',').map(str::trim).filter(|alias| !alias.is_empty()).collect();
    if aliases.is_empty() {
        let message = format!(
            "the relay publishes outbox events: name a transform here and give its type, {ROUTER_CLASS}"
        );
        options.refuse("transforms", None, message);
        return None;
    }
    let mut routers = Vec::new();
    for (index, alias) in aliases.iter().enumerate() {
        if aliases[..index].contains(alias) {
            let message = format!("`{alias}` is named twice");
            options.refuse("transforms", Some(chain.clone()), message);
        }
        routers.extend(transform(options, alias));
    }
    if routers.len() > 1 {
        let message = "more than one Event Router: the second would find no outbox row; keep one";
        options.refuse("transforms", Some(chain.clone()), message.to_owned());
    }
    routers.pop()
}

fn transform(options: &mut Options<'_>, alias: &str) -> Option<RouterOptions> {
    let type_option = format!("transforms.{alias}.type");
    let class = options.text(&type_option).unwrap_or_default();
    if class != ROUTER_CLASS {
        let value = (!class.is_empty()).then_some(class);
        let message = format!("the relay has one transform, {ROUTER_CLASS}");
        options.refuse(&type_option, value, message);
        return None;
    }
    let prefix = format!("transforms.{alias}.");
    let mut given = options.with_prefix(&prefix);
    given.remove("type");
    for option in PREDICATE_OPTIONS {
        if let Some(value) = given.remove(option) {
            let message = "this version has no predicates: the router sees the captured tables \
                           only; narrow table.include.list and remove the option";
            options.refuse(&format!("{prefix}{option}"), Some(value), message.to_owned());
        }
    }
    match RouterOptions::parse(&given) {
        Ok((router, warnings)) => {
            for warning in warnings {
                options.remark(format!("`{prefix}{}`: {}", warning.option, warning.message));
            }
            Some(router)
        }
        Err(invalid) => {
            for invalid in invalid {
                let option = format!("{prefix}{}", invalid.option);
                options.refuse(&option, invalid.value, invalid.message);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused(given: &[(&str, &str)]) -> Vec<String> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let router = read(&mut options);
        let refused: Vec<String> = match options.finish() {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.option).collect(),
        };
        assert_eq!(
            router.is_none(),
            refused.iter().any(|option| option != "transforms.a.predicate")
        );
        refused
    }

    #[test]
    fn any_alias_names_the_router() {
        let none: [&str; 0] = [];
        assert_eq!(refused(&[("transforms", "any"), ("transforms.any.type", ROUTER_CLASS)]), none);
    }

    #[test]
    fn what_the_relay_does_not_have_is_refused_by_name() {
        assert_eq!(refused(&[]), ["transforms"]);
        assert_eq!(refused(&[("transforms", "a")]), ["transforms.a.type"]);
        let regex_router = "org.apache.kafka.connect.transforms.RegexRouter";
        let other = [("transforms", "a"), ("transforms.a.type", regex_router)];
        assert_eq!(refused(&other), ["transforms.a.type"]);
        let predicate = [
            ("transforms", "a"),
            ("transforms.a.type", ROUTER_CLASS),
            ("transforms.a.predicate", "isOutbox"),
        ];
        assert_eq!(refused(&predicate), ["transforms.a.predicate"]);
        let bad_option = [
            ("transforms", "a"),
            ("transforms.a.type", ROUTER_CLASS),
            ("transforms.a.route.topic.regex", "("),
        ];
        assert_eq!(refused(&bad_option), ["transforms.a.route.topic.regex"]);
    }
}
