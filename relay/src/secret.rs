//! A text that can be used but not printed, and the names of options that hold one.

use std::fmt;

/// A password, token or other secret. Its `Debug` form shows nothing of it, and it has no `Display`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Words that make an option's name that of a secret.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas.config",
    "private.key",
    "api.key",
    // Keys and logins that Kafka's clients and registries take as text.
    "keystore.key",
    "key.pem",
    "user.info",
    "connectionstring",
    "connection.string",
];

/// Whether an option holds a secret, by its name: unknown options must be hidden too.
#[must_use]
pub fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| option.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("postgrespw".to_owned())), "***");
    }
}
