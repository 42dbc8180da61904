//! Who may call the REST API: users with passwords, and bearer tokens. Only their hashes are kept, and a comparison does
//! not tell by its time how much of a guess was right.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::{RestConfig, variable};

type Hash = [u8; 32];

/// The credentials that open the API. None at all: it is open.
#[derive(Default)]
pub(in crate::connect) struct Access {
    /// Of `user:password`.
    users: Vec<Hash>,
    tokens: Vec<Hash>,
}

impl Access {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When one cannot be read, has a line of another form, or is empty: an open API would be a surprise.
    pub(in crate::connect) fn load(config: &RestConfig) -> anyhow::Result<Self> {
        let of = |file: &Option<PathBuf>, variable, hash: fn(&str) -> Option<Hash>| match file {
            Some(path) => entries(path, hash).with_context(|| format!("{variable}: {path:?}")),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            users: of(&config.users_file, variable::RELAY_REST_USERS_FILE, user)?,
            tokens: of(&config.tokens_file, variable::RELAY_REST_TOKENS_FILE, |line| {
                Some(hash(line.as_bytes()))
            })?,
        })
    }

    /// Whether a call with these headers may go on.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        if self.is_open() {
            return true;
        }
        let Some(header) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let (scheme, credentials) = header.trim().split_once(' ').unwrap_or_default();
        let credentials = credentials.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                STANDARD.decode(credentials).is_ok_and(|pair| is_one_of(&hash(&pair), &self.users))
            }
            "bearer" => is_one_of(&hash(credentials.as_bytes()), &self.tokens),
            _ => false,
        }
    }

    /// What a call without credentials is told to bring.
    pub(super) fn challenges(&self) -> Vec<&'static str> {
        let all =
            [(&self.users, "Basic realm=\"relay\""), (&self.tokens, "Bearer realm=\"relay\"")];
        all.into_iter().filter(|(known, _)| !known.is_empty()).map(|(_, text)| text).collect()
    }

    fn is_open(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }
}

/// Looks at all of them, whichever it is.
fn is_one_of(given: &Hash, known: &[Hash]) -> bool {
    let none = Choice::from(0);
    known.iter().fold(none, |found, hash| found | hash.ct_eq(given)).into()
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// `user=password`, as the file of Kafka Connect's login module has it.
fn user(line: &str) -> Option<Hash> {
    let (user, password) = line.split_once('=')?;
    let (user, password) = (user.trim(), password.trim());
    (!user.is_empty() && !password.is_empty())
        .then(|| hash(format!("{user}:{password}").as_bytes()))
}

/// One a line; `#` begins a comment.
fn entries(path: &Path, read: fn(&str) -> Option<Hash>) -> anyhow::Result<Vec<Hash>> {
    let text = fs::read_to_string(path).context("it cannot be read")?;
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself stays unsaid: it may hold a password.
        let entry = read(line);
        entries.push(entry.with_context(|| format!("line {} is not user=password", number + 1))?);
    }
    if entries.is_empty() {
        bail!("it is empty: nobody could call the REST API; remove the variable to leave it open");
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn access() -> Access {
        Access {
            users: vec![user("ann = pass=word").unwrap(), user("bob=x").unwrap()],
            tokens: vec![hash(b"t0ken")],
        }
    }

    #[test]
    fn only_the_right_credentials_open_the_door() {
        let basic = |pair: &str| with(&format!("Basic {}", STANDARD.encode(pair)));
        for good in [basic("ann:pass=word"), basic("bob:x"), with("bearer t0ken")] {
            assert!(access().allows(&good), "{good:?}");
        }
        let bad = [
            basic("ann:x"),
            basic("ann:"),
            basic("bob"),
            with("Bearer x"),
            with("Bearer "),
            with("Basic t0ken"),
            with("Bearer bob:x"),
            with("Digest t0ken"),
            with("t0ken"),
            HeaderMap::new(),
        ];
        for bad in bad {
            assert!(!access().allows(&bad), "{bad:?}");
        }
        assert_eq!(access().challenges().len(), 2);
    }

    #[test]
    fn without_credentials_the_api_is_open() {
        assert!(Access::default().allows(&HeaderMap::new()));
        assert!(Access::default().allows(&with("Basic x")));
    }

    #[test]
    fn lines_that_are_no_users_are_not_taken() {
        for line in ["ann", "=x", "ann=", " = "] {
            assert_eq!(user(line), None, "{line}");
        }
    }
}
