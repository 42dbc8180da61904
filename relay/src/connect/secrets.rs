//! Passwords in answers: hidden behind a mask, and put back when the mask comes back. Pure.

use super::error::ConnectError;
use super::storage::Properties;
pub(super) use crate::secret::is_secret;

/// What stands in an answer where a secret is stored.
const MASK: &str = "********";

/// A copy for an answer: secrets masked, references such as `${env:PASSWORD}` as written.
pub(super) fn masked(properties: &Properties) -> Properties {
    let mask = |(option, value): (&String, &Option<String>)| {
        let hide = |value: &String| is_secret(option) && !value.is_empty() && !is_reference(value);
        let shown = match value {
            Some(value) if hide(value) => Some(MASK.to_owned()),
            other => other.clone(),
        };
        (option.clone(), shown)
    };
    properties.iter().map(mask).collect()
}

/// Puts the stored secrets where a caller sends the mask back, so that get, edit, put works.
pub(super) fn restore(
    sent: &mut Properties,
    stored: Option<&Properties>,
) -> Result<(), ConnectError> {
    for (option, value) in sent.iter_mut() {
        if !is_secret(option) || value.as_deref() != Some(MASK) {
            continue;
        }
        match stored.and_then(|stored| stored.get(option)) {
            Some(secret) => value.clone_from(secret),
            None => {
                return Err(ConnectError::bad_request(format!(
                    "Option {option} holds the mask {MASK} that answers show in place of a secret, but no value is \
                     stored that it could stand for; send the secret itself"
                )));
            }
        }
    }
    Ok(())
}

fn is_reference(value: &str) -> bool {
    value.starts_with("${") && value.ends_with('}') && value.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect()
    }

    #[test]
    fn secrets_are_masked_and_references_are_not() {
        let shown = masked(&properties(&[
            ("database.password", "postgrespw"),
            ("producer.override.sasl.jaas.config", "x"),
            ("producer.override.ssl.keystore.key", "x"),
            ("value.converter.basic.auth.user.info", "x"),
            ("database.sslpassword", "${file:/run/secrets:pw}"),
            ("database.user", "postgresuser"),
        ]));
        assert_eq!(shown["database.password"].as_deref(), Some(MASK));
        assert_eq!(shown["producer.override.sasl.jaas.config"].as_deref(), Some(MASK));
        assert_eq!(shown["producer.override.ssl.keystore.key"].as_deref(), Some(MASK));
        assert_eq!(shown["value.converter.basic.auth.user.info"].as_deref(), Some(MASK));
        assert_eq!(shown["database.sslpassword"].as_deref(), Some("${file:/run/secrets:pw}"));
        assert_eq!(shown["database.user"].as_deref(), Some("postgresuser"));
    }

    #[test]
    fn the_mask_stands_for_what_is_stored() {
        let stored = properties(&[("database.password", "postgrespw")]);
        let mut sent = masked(&stored);
        restore(&mut sent, Some(&stored)).unwrap();
        assert_eq!(sent, stored);
    }

    #[test]
    fn a_mask_that_stands_for_nothing_is_refused() {
        let mut sent = properties(&[("database.password", MASK)]);
        let error = restore(&mut sent, None).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.message.contains("database.password"));
    }
}
