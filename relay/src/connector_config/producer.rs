//! `producer.override.*` over the worker's own settings: the properties of the connector's producer.

use super::options::Options;
use crate::config::WorkerConfig;
use crate::kafka_client::{self, Properties};
use crate::secret::Secret;

const PREFIX: &str = "producer.override.";

/// In librdkafka's terms as far as security goes.
pub(super) fn read(options: &mut Options<'_>, worker: &WorkerConfig) -> Properties {
    let mut properties = worker.producer.clone();
    let own = options.with_prefix(PREFIX).into_iter();
    properties.extend(own.map(|(name, value)| (name, Secret::new(value))));
    match kafka_client::translate(&properties) {
        Ok(translated) => translated,
        Err(wrong) => {
            // The worker's own were looked at when it started.
            options.refuse(&format!("{PREFIX}{}", wrong.property), None, wrong.problem);
            properties
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(given: &[(&str, &str)]) -> Result<Properties, String> {
        let variables = [
            ("BOOTSTRAP_SERVERS", "kafka:9093"),
            ("CONNECT_SECURITY_PROTOCOL", "SASL_SSL"),
            ("CONNECT_SASL_MECHANISM", "PLAIN"),
            (
                "CONNECT_SASL_JAAS_CONFIG",
                "x.plain.PlainLoginModule required username=\"w\" password=\"hush\";",
            ),
            ("CONNECT_PRODUCER_SASL_MECHANISM", "SCRAM-SHA-256"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let worker = WorkerConfig::from_variables(variables).unwrap();
        let given: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&given);
        let properties = read(&mut options, &worker);
        match options.finish() {
            Ok(_) => Ok(properties),
            Err(errors) => Err(errors[0].option.clone()),
        }
    }

    #[test]
    fn a_connector_s_overrides_win_over_the_worker_s_producer_and_that_over_the_worker() {
        let properties = check(&[("producer.override.sasl.username", "ignored")]).unwrap();
        assert_eq!(properties["sasl.username"].expose(), "w");
        assert_eq!(properties["sasl.mechanism"].expose(), "SCRAM-SHA-256");
        let jaas = "x.scram.ScramLoginModule required username=\"c\" password=\"hush\";";
        let properties = check(&[("producer.override.sasl.jaas.config", jaas)]).unwrap();
        assert_eq!(properties["sasl.username"].expose(), "c");
        let open = check(&[("producer.override.security.protocol", "PLAINTEXT")]).unwrap();
        assert_eq!(open.keys().collect::<Vec<_>>(), ["security.protocol"]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_the_connector_s_option() {
        let store = [("producer.override.ssl.truststore.location", "/t.jks")];
        assert_eq!(check(&store).unwrap_err(), "producer.override.ssl.truststore.location");
    }
}
