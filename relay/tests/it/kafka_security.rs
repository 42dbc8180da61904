//! Kafka behind locked doors: a broker of its own with TLS and SASL listeners, and workers that come in with the
//! settings of Kafka's Java client.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use sqlx::Connection as _;
use testbed::server::{Authority, Kafka, KafkaSecurity, Options, RunFolder, client_keystore};
use testbed::{Settings, topic, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};

const USER: &str = "relay";
const STORE_PASSWORD: &str = "store-secret";

struct Locked {
    kafka: Kafka,
    security: KafkaSecurity,
    folder: RunFolder,
    /// PKCS#12, with a certificate that the broker trusts.
    keystore: PathBuf,
}

impl Locked {
    async fn start() -> Result<Self> {
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let identity = Authority::new()?.issue("kafka", &["localhost"])?;
        let (keystore, certificate) = client_keystore(&settings, folder.path(), STORE_PASSWORD)?;
        let security = KafkaSecurity::new(identity, USER, &unique_name("pw")).trust(&certificate);
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

    /// Starts a worker with these settings, registers the example's connector and follows one event to its topic;
    /// exactly once, so that the clients of transactions and of the stored position go through the door, too.
    async fn relay_one(&self, bootstrap_servers: String, env: &[(&str, &str)]) -> Result<()> {
        let (database, mut sql) = outbox_database().await?;
        let worker = Worker::start_only(&bootstrap_servers, &unique_name("locked"), env)?;
        worker.ready().await?;
        let mut config = example_config(&database)?;
        config["exactly.once.support"] = json!("required");
        let body = json!({"name": "outbox-connector", "config": config});
        let (status, answer) = worker.call("POST", "/connectors", Some(&body)).await?;
        ensure!(status == 201, "{answer}");
        worker.states("outbox-connector", "RUNNING", Some("RUNNING")).await?;
        sqlx::raw_sql(
            "insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload) \
             values (gen_random_uuid(), 'Order', '7', 'OrderCreated', now(), '{}')",
        )
        .execute(&mut sql)
        .await?;
        sql.close().await?;
        let slot = body["config"]["slot.name"].as_str().unwrap_or_default();
        let topic = format!("OrderEvents_{slot}");
        let records = topic::wait_for(self.kafka.bootstrap_servers(), &topic, 1, DEADLINE).await?;
        assert_eq!(records[0].key_text(), "7");
        worker.program.terminate().await?;
        let output = worker.program.output().join("\n");
        ensure!(!output.contains(&self.security.password), "the log shows the password");
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
