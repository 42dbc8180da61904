//! Proves who we are to PostgreSQL: SCRAM-SHA-256 (bound to the TLS session where there is one), MD5 or a clear-text
//! password, as the server asks.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};

use super::connection::{Connection, refused};
use super::error::SourceError;
use crate::connector_config::DatabaseConfig;

impl Connection {
    pub(super) async fn authenticate(
        &mut self,
        database: &DatabaseConfig,
    ) -> Result<(), SourceError> {
        loop {
            match self.message().await? {
                backend::Message::AuthenticationOk => return Ok(()),
                backend::Message::AuthenticationCleartextPassword => {
                    let password = database.password.expose().as_bytes();
                    self.encode(|outbox| frontend::password_message(password, outbox))?;
                    self.flush().await?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let user = database.user.as_bytes();
                    let password = database.password.expose().as_bytes();
                    let hash = md5_hash(user, password, body.salt());
                    self.encode(|outbox| frontend::password_message(hash.as_bytes(), outbox))?;
                    self.flush().await?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    self.scram(database, &body).await?;
                }
                backend::Message::ErrorResponse(body) => {
                    return Err(refused("log in", &body));
                }
                _ => {
                    return Err(SourceError::Authentication {
                        reason: "the server asks for a method that the relay does not have; \
                                 it has scram-sha-256, md5 and password (pg_hba.conf)"
                            .to_owned(),
                    });
                }
            }
        }
    }

    /// SCRAM-SHA-256 (RFC 7677), as PostgreSQL's documentation describes under "SASL Authentication".
    async fn scram(
        &mut self,
        database: &DatabaseConfig,
        offered: &backend::AuthenticationSaslBody,
    ) -> Result<(), SourceError> {
        let failed =
            |error: std::io::Error| SourceError::Authentication { reason: error.to_string() };
        let mut mechanisms = offered.mechanisms();
        let (mut known, mut binds) = (false, false);
        while let Some(mechanism) = mechanisms.next().map_err(failed)? {
            known |= mechanism == sasl::SCRAM_SHA_256;
            binds |= mechanism == sasl::SCRAM_SHA_256_PLUS;
        }
        let password = database.password.expose().as_bytes();
        let (mechanism, binding) = match self.channel_binding.take() {
            Some(binding) if binds => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(binding))
            }
            _ if !known => {
                let reason = "the server does not offer SCRAM-SHA-256".to_owned();
                return Err(SourceError::Authentication { reason });
            }
            // Tells the server that we would have: it notices if somebody took its offer away.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let mut scram = sasl::ScramSha256::new(password, binding);
        self.encode(|outbox| frontend::sasl_initial_response(mechanism, scram.message(), outbox))?;
        self.flush().await?;
        match self.message().await? {
            backend::Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(failed)?;
            }
            backend::Message::ErrorResponse(body) => return Err(refused("log in", &body)),
            _ => return Err(unexpected("SASL challenge")),
        }
        self.encode(|outbox| frontend::sasl_response(scram.message(), outbox))?;
        self.flush().await?;
        match self.message().await? {
            backend::Message::AuthenticationSaslFinal(body) => {
                // The server proves that it knows the password as well.
                scram.finish(body.data()).map_err(failed)
            }
            backend::Message::ErrorResponse(body) => Err(refused("log in", &body)),
            _ => Err(unexpected("SASL outcome")),
        }
    }
}

fn unexpected(awaited: &str) -> SourceError {
    SourceError::Protocol(format!("another message where a {awaited} was due"))
}
