//! Kafka behind locked doors: a broker of its own with TLS and SASL listeners, and workers that come in with the
//! settings of Kafka's Java client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use testbed::server::{
    Authority, Identity, IdentityProvider, Kafka, KafkaSecurity, Options, RunFolder, TokenClient,
    client_keystore,
};
use testbed::{Settings, eventually, topic, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};

const USER: &str = "relay";
const STORE_PASSWORD: &str = "store-secret";
/// Long enough for a busy machine, short enough that a test sees the next token.
const TOKEN_LIFE: Duration = Duration::from_secs(10);
const OAUTH: &str = "org.apache.kafka.common.security.oauthbearer";

struct Locked {
    kafka: Kafka,
    security: KafkaSecurity,
    folder: RunFolder,
    /// PKCS#12, with a certificate that the broker trusts.
    keystore: PathBuf,
}

impl Locked {
    async fn start() -> Result<Self> {
        Self::start_with(Authority::new()?.issue("kafka", &["localhost"])?, None).await
    }

    /// Whose doors are open to tokens of a provider, too.
    async fn start_with(identity: Identity, tokens: Option<&IdentityProvider>) -> Result<Self> {
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let (keystore, certificate) = client_keystore(&settings, folder.path(), STORE_PASSWORD)?;
        let mut security =
            KafkaSecurity::new(identity, USER, &unique_name("pw")).trust(&certificate);
        if let Some(tokens) = tokens {
            security = security.trust_tokens(tokens);
        }
        let quiet = Arc::new(|_: &str| {}) as _;
        let options = Options::for_tests();
        let kafka = Kafka::start_with(&settings, &folder, options, Some(&security), &quiet).await?;
        Ok(Self { kafka, security, folder, keystore })
    }

    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    }

    fn login(&self, module: &str) -> String {
        let KafkaSecurity { user, password, .. } = &self.security;
        format!(
            "org.apache.kafka.common.security.{module} required username=\"{user}\" password=\"{password}\";"
        )
    }

    /// Starts a worker with these settings and follows one event to its topic.
    async fn relay_one(&self, bootstrap_servers: String, env: &[(&str, &str)]) -> Result<()> {
        let mut relaying = Relaying::start(&bootstrap_servers, env, &[]).await?;
        relaying.event_arrives(&self.kafka, 1).await?;
        relaying.end(&self.security.password).await
    }
}

/// A worker with the example's connector.
struct Relaying {
    worker: Worker,
    sql: PgConnection,
    topic: String,
}

impl Relaying {
    /// Exactly once, so that the clients of transactions and of the stored position go through the door, too.
    async fn start(
        bootstrap_servers: &str,
        env: &[(&str, &str)],
        options: &[(&str, &str)],
    ) -> Result<Self> {
        let (database, sql) = outbox_database().await?;
        let worker = Worker::start_only(bootstrap_servers, &unique_name("locked"), env)?;
        worker.ready().await?;
        let mut config = example_config(&database)?;
        config["exactly.once.support"] = json!("required");
        for (option, value) in options {
            config[*option] = json!(value);
        }
        let body = json!({"name": "outbox-connector", "config": config});
        let (status, answer) = worker.call("POST", "/connectors", Some(&body)).await?;
        ensure!(status == 201, "{answer}");
        worker.states("outbox-connector", "RUNNING", Some("RUNNING")).await?;
        let slot = body["config"]["slot.name"].as_str().unwrap_or_default();
        let topic = format!("OrderEvents_{slot}");
        Ok(Self { worker, sql, topic })
    }

    /// Writes the event of this number, and waits until so many are there.
    async fn event_arrives(&mut self, kafka: &Kafka, number: usize) -> Result<()> {
        let insert = format!(
            "insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload) \
             values (gen_random_uuid(), 'Order', '{number}', 'OrderCreated', now(), '{{}}')",
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut self.sql).await?;
        let topic = &self.topic;
        let records = topic::wait_for(kafka.bootstrap_servers(), topic, number, DEADLINE).await?;
        assert_eq!(records[number - 1].key_text(), number.to_string());
        Ok(())
    }

    async fn end(self, secret: &str) -> Result<()> {
        self.sql.close().await?;
        self.worker.program.terminate().await?;
        let output = self.worker.program.output().join("\n");
        ensure!(!output.contains(secret), "the log shows the secret");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_java_s_settings_relays_through_every_door() -> Result<()> {
    let locked = Locked::start().await?;
    let ca = locked.file("ca.pem", &locked.security.identity.authority)?;
    let (plain, scram) =
        (locked.login("plain.PlainLoginModule"), locked.login("scram.ScramLoginModule"));
    let tls = [
        ("CONNECT_SSL_TRUSTSTORE_TYPE", "PEM"),
        ("CONNECT_SSL_TRUSTSTORE_LOCATION", &*ca),
        // As one who knows Kafka Connect has it: everything once more for the producers.
        ("CONNECT_PRODUCER_SECURITY_PROTOCOL", "SASL_SSL"),
        ("CONNECT_PRODUCER_SSL_TRUSTSTORE_TYPE", "PEM"),
        ("CONNECT_PRODUCER_SSL_TRUSTSTORE_LOCATION", &*ca),
    ];
    let doors = [
        ("SASL_SSL", "SCRAM-SHA-512", &*scram),
        ("SASL_SSL", "PLAIN", &*plain),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256", &*scram),
    ];
    let through = doors.map(|(protocol, mechanism, jaas)| {
        let locked = &locked;
        async move {
            let mut env = vec![
                ("CONNECT_SECURITY_PROTOCOL", protocol),
                ("CONNECT_SASL_MECHANISM", mechanism),
                ("CONNECT_SASL_JAAS_CONFIG", jaas),
            ];
            let address = match protocol {
                "SASL_SSL" => {
                    env.extend(tls);
                    locked.security.sasl_ssl()
                }
                _ => locked.security.sasl_plaintext(),
            };
            locked.relay_one(address, &env).await
        }
    });
    try_join_all(through).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_the_door_as_pem_and_as_pkcs12() -> Result<()> {
    let locked = Locked::start().await?;
    let identity = &locked.security.identity;
    let ca = locked.file("ca.pem", &identity.authority)?;
    // The broker's own certificate is one of the authority, too.
    let pem = locked.file("client.pem", &format!("{}{}", identity.key, identity.certificate))?;
    let bundle = locked.keystore.display().to_string();
    let base = [("CONNECT_SECURITY_PROTOCOL", "SSL"), ("CONNECT_SSL_TRUSTSTORE_LOCATION", &*ca)];
    let stores = [
        vec![("CONNECT_SSL_KEYSTORE_LOCATION", &*pem)],
        vec![
            ("CONNECT_SSL_KEYSTORE_TYPE", "PKCS12"),
            ("CONNECT_SSL_KEYSTORE_LOCATION", &*bundle),
            ("CONNECT_SSL_KEYSTORE_PASSWORD", STORE_PASSWORD),
        ],
    ];
    let through = stores.into_iter().map(|store| {
        let env = [&base[..], &store].concat();
        let locked = &locked;
        async move { locked.relay_one(locked.security.ssl(), &env).await }
    });
    try_join_all(through).await?;

    // What does not open it is told once, without the password.
    let scram = locked.login("scram.ScramLoginModule").replace("password=\"", "password=\"wrong-");
    let password = format!("wrong-{}", locked.security.password);
    let login = [
        ("CONNECT_SECURITY_PROTOCOL", "SASL_SSL"),
        ("CONNECT_SASL_MECHANISM", "SCRAM-SHA-256"),
        ("CONNECT_SASL_JAAS_CONFIG", &*scram),
        ("CONNECT_SSL_TRUSTSTORE_LOCATION", &*ca),
        ("RUST_LOG", "debug"),
    ];
    let stranger = [("CONNECT_SECURITY_PROTOCOL", "SSL"), ("RUST_LOG", "debug")];
    // The certificate is for the name alone.
    let other_host = locked.security.sasl_ssl().replace("localhost", "127.0.0.1");
    for (address, env, told) in [
        (locked.security.sasl_ssl(), &login[..], "Authentication failed"),
        (locked.security.ssl(), &stranger[..], "certificate verify failed"),
        (other_host, &login[..], "certificate verify failed"),
    ] {
        let worker = Worker::start_only(&address, &unique_name("shut"), env)?;
        worker.program.line(told, DEADLINE).await?;
        assert_eq!(worker.get("/health/ready").await?.0, 503);
        worker.program.terminate().await?;
        assert!(!worker.program.output().join("\n").contains(&password));
    }
    Ok(())
}

/// Java's login, for this client and secret.
fn oauth_login(provider: &IdentityProvider, secret: &str, more: &str) -> String {
    let id = &provider.client().id;
    format!(
        "{OAUTH}.OAuthBearerLoginModule required clientId=\"{id}\" clientSecret=\"{secret}\" {more};"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_comes_in_with_tokens_and_fetches_new_ones_while_it_runs() -> Result<()> {
    let identity = Authority::new()?.issue("localhost", &["localhost"])?;
    let client = TokenClient::new(TOKEN_LIFE);
    let provider = IdentityProvider::start(client, Some(&identity)).await?;
    let locked = Locked::start_with(identity, Some(&provider)).await?;
    let ca = locked.file("ca.pem", &locked.security.identity.authority)?;
    let (url, handler) = (provider.token_url(), format!("{OAUTH}.OAuthBearerLoginCallbackHandler"));
    let secret = &provider.client().secret;
    let trust = format!(
        "scope=\"orders events\" extension_logicalCluster=\"lkc-1\" \
         ssl.truststore.type=\"PEM\" ssl.truststore.location=\"{ca}\""
    );
    let jaas = oauth_login(&provider, secret, &trust);
    let env = [
        ("CONNECT_SECURITY_PROTOCOL", "SASL_SSL"),
        ("CONNECT_SASL_MECHANISM", "OAUTHBEARER"),
        ("CONNECT_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", &*url),
        ("CONNECT_SASL_LOGIN_CALLBACK_HANDLER_CLASS", &*handler),
        ("CONNECT_SASL_JAAS_CONFIG", &*jaas),
        ("CONNECT_SSL_TRUSTSTORE_LOCATION", &*ca),
        ("RUST_LOG", "info,relay=debug"),
    ];
    let mut relaying = Relaying::start(&locked.security.sasl_ssl(), &env, &[]).await?;
    relaying.event_arrives(&locked.kafka, 1).await?;
    // The broker lets nobody stay longer than the token is good. Each client has one of its own.
    let first = provider.issued();
    eventually("the next tokens", DEADLINE, || async {
        Ok((provider.issued() >= 2 * first).then_some(()))
    })
    .await?;
    relaying.event_arrives(&locked.kafka, 2).await?;
    assert!(provider.scopes().iter().all(|scope| scope == "orders events"));
    relaying.end(secret).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_s_producers_have_tokens_of_their_own() -> Result<()> {
    let identity = Authority::new()?.issue("localhost", &["localhost"])?;
    let provider = IdentityProvider::start(TokenClient::new(TOKEN_LIFE), None).await?;
    let locked = Locked::start_with(identity, Some(&provider)).await?;
    let scram = locked.login("scram.ScramLoginModule");
    let env = [
        ("CONNECT_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("CONNECT_SASL_MECHANISM", "SCRAM-SHA-512"),
        ("CONNECT_SASL_JAAS_CONFIG", &*scram),
        ("RUST_LOG", "debug"),
    ];
    let (url, TokenClient { id, secret, .. }) = (provider.token_url(), provider.client());
    let options = [
        ("producer.override.sasl.mechanism", "OAUTHBEARER"),
        ("producer.override.sasl.jaas.config", ""),
        ("producer.override.sasl.oauthbearer.token.endpoint.url", &*url),
        ("producer.override.sasl.oauthbearer.client.credentials.client.id", id),
        ("producer.override.sasl.oauthbearer.client.credentials.client.secret", secret),
    ];
    let address = locked.security.sasl_plaintext();
    let mut relaying = Relaying::start(&address, &env, &options).await?;
    relaying.event_arrives(&locked.kafka, 1).await?;
    ensure!(provider.issued() > 0, "nobody asked for a token");
    relaying.end(secret).await?;

    // A secret that the provider does not know is told, and waited for.
    let wrong = unique_name("mistake");
    let jaas = oauth_login(&provider, &wrong, "");
    let env = [
        ("CONNECT_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("CONNECT_SASL_MECHANISM", "OAUTHBEARER"),
        ("CONNECT_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", &*url),
        ("CONNECT_SASL_JAAS_CONFIG", &*jaas),
        ("RUST_LOG", "debug"),
    ];
    let worker = Worker::start_only(&address, &unique_name("shut"), &env)?;
    let told = "as they should be: Failed to acquire SASL OAUTHBEARER token";
    let line = worker.program.line(told, DEADLINE).await?;
    ensure!(line.contains("invalid_client"), "{line}");
    assert_eq!(worker.get("/health/ready").await?.0, 503);
    worker.program.terminate().await?;
    assert!(!worker.program.output().join("\n").contains(&wrong));
    Ok(())
}
