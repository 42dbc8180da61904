//! Nothing that a running system says holds one of its secrets: logs at the level `debug`, answers of the REST APIs,
//! and what is said of mistakes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Client;
use serde_json::{Value, json};
use testbed::server::{RunFolder, client_keystore};
use testbed::{Program, Settings, eventually, free_port, program, servers, topic, unique_name};

use crate::flow::{DEADLINE, file};

/// The user that stands before a secret where a database does not give one.
const USER: &str = "u";

/// A secret that cannot stand in a URL as it is.
fn secret(kind: &str) -> String {
    format!("{}/+", unique_name(kind))
}

/// What stands in a URL as it is (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// As a URL has it.
fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A secret as it is, in a URL, and in base64: alone, and behind each of the users as Basic authentication has it.
fn forms(secret: &str, users: &[&str]) -> Vec<String> {
    let encoded = percent_encoded(secret);
    // Whoever writes the other case changes the escapes alone; the names have lower case and digits.
    let mut forms = vec![secret.to_owned(), encoded.to_ascii_lowercase(), encoded];
    let logins = users.iter().map(|user| format!("{user}:{secret}"));
    for text in logins.chain([secret.to_owned()]) {
        // What is padded begins with what is not.
        forms.extend([STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
    }
    forms
}

/// Fails where a text shows a secret in any form.
fn hides(name: &str, text: &str, secrets: &[&str], users: &[&str]) -> Result<()> {
    for form in secrets.iter().flat_map(|secret| forms(secret, users)) {
        ensure!(!text.contains(&form), "{name} shows a secret as {form}: {text}");
    }
    Ok(())
}

#[test]
fn a_secret_is_found_in_every_form() {
    for shown in
        ["pw/+", "a?password=pw%2F%2B&", "a?password=pw%2f%2b&", "cHcvKw==", "Basic dTpwdy8r,"]
    {
        assert!(hides("x", shown, &["other", "pw/+"], &["v", USER]).is_err(), "{shown}");
    }
    assert!(hides("x", "pw-+ pw %2F%2B u:", &["pw/+"], &[USER]).is_ok());
}

/// A program and all that was heard of it.
struct Heard {
    name: &'static str,
    program: Program,
    url: String,
    answers: Vec<String>,
}

impl Heard {
    fn start(name: &'static str, env: &[(&str, &str)]) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port());
        let listeners = format!("http://{address}");
        let mut all = vec![
            ("HTTP_ADDRESS", &*address),
            ("CONNECT_LISTENERS", &*listeners),
            // hyper and the like tell of headers at the level `trace` only.
            ("RUST_LOG", "debug"),
        ];
        all.extend_from_slice(env);
        let program = Program::start(program(name)?, &[], &all)?;
        Ok(Self { name, program, url: format!("http://{address}"), answers: Vec::new() })
    }

    async fn call(
        &mut self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<(u16, String)> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let request = Client::new().request(method, format!("{}{path}", self.url));
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.bearer_auth(token).timeout(DEADLINE).send().await?;
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let text = answer.text().await?;
        self.answers.push(format!("{path}: {headers} {text}"));
        Ok((status, text))
    }

    async fn ready(&self) -> Result<()> {
        let url = format!("{}/health/ready", self.url);
        let ready = eventually("readiness", DEADLINE, || async {
            Ok((reqwest::get(&url).await?.status().as_u16() == 200).then_some(()))
        });
        ready.await.with_context(|| self.program.tail())
    }

    /// Ends it and looks through everything.
    async fn check(self, secrets: &[&str], users: &[&str]) -> Result<()> {
        let _ = self.program.terminate().await?;
        let log = self.program.output();
        ensure!(log.len() > 3, "{} logged nothing", self.name);
        hides(self.name, &log.join("\n"), secrets, users)?;
        hides(self.name, &self.answers.join("\n"), secrets, users)
    }
}

/// The example's connector on this database, with secrets wherever an option may hold one.
fn connector(database: &testbed::PostgresDatabase, password: &str, secret: &str) -> Result<Value> {
    let mut config = file("register-postgres.json")["config"].clone();
    let slot = unique_name("slot");
    for (option, value) in [
        ("database.hostname", database.host.as_str()),
        ("database.port", &database.port.to_string()),
        ("database.user", &database.user),
        ("database.password", password),
        ("database.dbname", &database.name),
        ("slot.name", &slot),
        ("publication.name", &slot),
        ("publication.autocreate.mode", "filtered"),
        ("transforms.outbox.route.topic.replacement", &format!("${{routedByValue}}_{slot}")),
        (
            "producer.override.sasl.jaas.config",
            &format!(
                "x.plain.PlainLoginModule required username=\"{USER}\" password=\"{secret}\";"
            ),
        ),
        ("producer.override.ssl.key.password", secret),
        ("producer.override.sasl.oauthbearer.client.credentials.client.secret", secret),
        ("value.converter.basic.auth.user.info", &format!("{USER}:{secret}")),
        ("some.unknown.client.secret", secret),
    ] {
        config[option] = json!(value);
    }
    ensure!(config.is_object());
    Ok(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_line_and_no_answer_shows_a_secret() -> Result<()> {
    let servers = servers().await?;
    let (postgres, mysql) =
        tokio::try_join!(servers.postgres_database(), servers.mysql_database())?;
    let kafka = servers.bootstrap_servers();
    let folder = RunFolder::create(&Settings::read(), false)?;
    let [option, mistake, token, worker_secret, provided] =
        ["option", "mistake", "token", "worker", "provided"].map(secret);
    let secrets = [
        &*postgres.password,
        &*mysql.password,
        &*option,
        &*mistake,
        &*token,
        &*worker_secret,
        &*provided,
    ];
    let users = [USER, &*postgres.user, &*mysql.user];
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, &token)?;
    let topics = unique_name("secrets");
    let [configs, offsets, statuses] = ["c", "o", "s"].map(|kind| format!("{topics}_{kind}"));
    let jaas = format!(
        "x.plain.PlainLoginModule required username=\"{USER}\" password=\"{worker_secret}\";"
    );
    let mut relay = Heard::start(
        "relay",
        &[
            ("BOOTSTRAP_SERVERS", kafka),
            ("GROUP_ID", &topics),
            ("CONFIG_STORAGE_TOPIC", &configs),
            ("OFFSET_STORAGE_TOPIC", &offsets),
            ("STATUS_STORAGE_TOPIC", &statuses),
            ("RELAY_REST_TOKENS_FILE", tokens.to_str().context("a path")?),
            ("CONNECT_SASL_JAAS_CONFIG", &jaas),
            ("CONNECT_PRODUCER_SASL_JAAS_CONFIG", &jaas),
            ("CONNECT_SSL_KEYSTORE_PASSWORD", &worker_secret),
            ("MY_DATABASE_PASSWORD", &provided),
        ],
    )?;
    let mut orders = Heard::start("order-service", &[("DATABASE_URL", &postgres.url())])?;
    let order_topic = unique_name("orders");
    let mut shipments = Heard::start(
        "shipment-service",
        &[
            ("DATABASE_URL", &mysql.url()),
            ("BOOTSTRAP_SERVERS", kafka),
            ("ORDER_TOPIC_NAME", &order_topic),
            ("GROUP_ID", &topics),
        ],
    )?;
    orders.ready().await?;
    relay.ready().await?;

    register(&mut relay, &postgres, &token, &mistake, &option).await?;
    fail(&mut relay, &postgres, &token, &mistake, &folder).await?;
    ask_relay(&mut relay, &token, &mistake).await?;

    // An order, and questions with a mistake in them.
    let order = file("resources/data/create-order-request.json");
    let (status, text) = orders.call(&token, "POST", "/orders", &order).await?;
    ensure!(status == 200, "{text}");
    for path in ["/orders", "/orders/0", "/metrics", "/health/ready", "/openapi.json"] {
        orders.call(&token, "GET", path, &Value::Null).await?;
    }
    topic::produce(kafka, &order_topic, Some(b"1"), &[], Some(b"no json")).await?;
    shipments.ready().await?;
    for path in ["/shipments", "/shipments/x", "/metrics", "/health/ready"] {
        shipments.call(&token, "GET", path, &Value::Null).await?;
    }
    relay.check(&secrets, &users).await?;
    orders.check(&secrets, &users).await?;
    shipments.check(&secrets, &users).await?;

    mistakes(kafka, &postgres, &mysql, &mistake, &folder).await
}

/// Registers connectors with passwords of all kinds, good and bad, and tries what is refused.
async fn register(
    relay: &mut Heard,
    postgres: &testbed::PostgresDatabase,
    token: &str,
    mistake: &str,
    option: &str,
) -> Result<()> {
    // The right password, a wrong one, and one that is a reference to a variable of the worker.
    for (name, password) in [
        ("right", &*postgres.password),
        ("wrong", mistake),
        ("referred", "${env:MY_DATABASE_PASSWORD}"),
    ] {
        let config = connector(postgres, password, option)?;
        let body = json!({"name": name, "config": config});
        relay.call(token, "POST", "/connectors", &body).await?;
        let validate =
            "/connector-plugins/io.debezium.connector.postgresql.PostgresConnector/config/validate";
        relay.call(token, "PUT", validate, &config).await?;
        let mut refused = config.clone();
        refused["database.sslpassword"] = json!(option);
        refused["producer.override.security.protocol"] = json!(mistake);
        relay.call(token, "PUT", &format!("/connectors/{name}/config"), &refused).await?;
    }
    let states = eventually("states of the connectors", DEADLINE, || async {
        let url = format!("{}/connectors?expand=status&expand=info", relay.url);
        let text = Client::new().get(url).bearer_auth(token).send().await?.text().await?;
        Ok(text.contains("\"RUNNING\"").then_some(text))
    })
    .await?;
    relay.answers.push(states);
    Ok(())
}

/// Registers a connector whose producer has a password that does not open its keystore, and waits until it has failed.
async fn fail(
    relay: &mut Heard,
    postgres: &testbed::PostgresDatabase,
    token: &str,
    mistake: &str,
    folder: &RunFolder,
) -> Result<()> {
    let path = folder.path().to_owned();
    let made = tokio::task::spawn_blocking(move || {
        client_keystore(&Settings::read(), &path, "not the one that is told")
    });
    let (store, _) = made.await??;
    let mut config = connector(postgres, &postgres.password, mistake)?;
    for (option, value) in [
        ("security.protocol", "SSL"),
        ("ssl.keystore.type", "PKCS12"),
        ("ssl.keystore.location", store.to_str().context("a path")?),
        ("ssl.keystore.password", mistake),
    ] {
        config[format!("producer.override.{option}")] = json!(value);
    }
    let body = json!({"name": "failed", "config": config});
    let (status, text) = relay.call(token, "POST", "/connectors", &body).await?;
    ensure!(status == 201, "{text}");
    let status = eventually("a failed task", DEADLINE, || async {
        let url = format!("{}/connectors/failed/status", relay.url);
        let text = Client::new().get(url).bearer_auth(token).send().await?.text().await?;
        Ok((text.contains("\"FAILED\"") && text.contains("keystore")).then_some(text))
    })
    .await?;
    relay.answers.push(status);
    Ok(())
}

/// Asks for everything that the relay tells, with and without the right token.
async fn ask_relay(relay: &mut Heard, token: &str, mistake: &str) -> Result<()> {
    for path in ["", "/config", "/status", "/tasks", "/topics", "/offsets", "/tasks/0/status"] {
        for name in ["right", "wrong", "referred", "failed"] {
            relay.call(token, "GET", &format!("/connectors/{name}{path}"), &Value::Null).await?;
        }
    }
    for path in
        ["/", "/metrics", "/admin/loggers", "/health", "/health/ready", "/connector-plugins"]
    {
        relay.call(token, "GET", path, &Value::Null).await?;
        relay.call(mistake, "GET", path, &Value::Null).await?;
    }
    relay.call(token, "POST", "/connectors", &json!(mistake)).await?;
    Ok(())
}

/// Programs that do not get far: each says why, without the password.
async fn mistakes(
    kafka: &str,
    postgres: &testbed::PostgresDatabase,
    mysql: &testbed::MySqlDatabase,
    mistake: &str,
    folder: &RunFolder,
) -> Result<()> {
    let encoded = percent_encoded(mistake);
    let wrong_postgres = postgres.url().replace(&postgres.password, &encoded);
    let wrong_mysql = mysql.url().replace(&mysql.password, &encoded);
    let jaas = format!("x.plain.PlainLoginModule required password=\"{mistake}\"");
    let users = folder.path().join("users");
    fs::write(&users, mistake)?;
    let users = users.to_str().context("a path")?;
    let login = ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    for (name, env, said) in [
        ("order-service", vec![("DATABASE_URL", &*wrong_postgres)], "authentication failed"),
        (
            "order-service",
            vec![("DATABASE_URL", &*wrong_postgres.replace("postgres://", "pg://"))],
            "DATABASE_URL",
        ),
        (
            "shipment-service",
            vec![("DATABASE_URL", &*wrong_mysql), ("BOOTSTRAP_SERVERS", kafka)],
            "Access denied",
        ),
        (
            "shipment-service",
            vec![
                ("DATABASE_URL", &*format!("{wrong_mysql}?ssl-mode={encoded}")),
                ("BOOTSTRAP_SERVERS", kafka),
            ],
            "DATABASE_URL",
        ),
        (
            "shipment-service",
            vec![
                ("DATABASE_URL", &*mysql.url()),
                ("BOOTSTRAP_SERVERS", kafka),
                login,
                ("KAFKA_SASL_MECHANISM", "PLAIN"),
                ("KAFKA_SASL_PASSWORD", mistake),
            ],
            "KAFKA_SASL_USERNAME",
        ),
        (
            "relay",
            vec![
                ("BOOTSTRAP_SERVERS", kafka),
                ("CONNECT_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
                ("CONNECT_SASL_MECHANISM", "PLAIN"),
                ("CONNECT_SASL_JAAS_CONFIG", &*jaas),
            ],
            "CONNECT_SASL_JAAS_CONFIG",
        ),
        (
            "relay",
            vec![("BOOTSTRAP_SERVERS", kafka), ("CONNECT_SSL_UNKNOWN_PASSWORD", mistake)],
            "ssl.unknown.password",
        ),
        (
            "relay",
            vec![("BOOTSTRAP_SERVERS", kafka), ("RELAY_REST_USERS_FILE", users)],
            "RELAY_REST_USERS_FILE",
        ),
    ] {
        complains(name, &env, said, mistake).await?;
    }
    mistakes_with_tokens(kafka, &mysql.url(), mistake).await
}

/// The same of programs that would fetch tokens, but are not told where.
async fn mistakes_with_tokens(kafka: &str, mysql: &str, mistake: &str) -> Result<()> {
    let jaas = format!(
        "x.oauthbearer.OAuthBearerLoginModule required clientId=\"u\" clientSecret=\"{mistake}\";"
    );
    let relay = [
        ("BOOTSTRAP_SERVERS", kafka),
        ("CONNECT_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("CONNECT_SASL_MECHANISM", "OAUTHBEARER"),
        ("CONNECT_SASL_JAAS_CONFIG", &*jaas),
    ];
    complains("relay", &relay, "CONNECT_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", mistake).await?;
    let shipments = [
        ("DATABASE_URL", mysql),
        ("BOOTSTRAP_SERVERS", kafka),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "OAUTHBEARER"),
        ("KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", mistake),
    ];
    let said = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL";
    complains("shipment-service", &shipments, said, mistake).await
}

/// Starts a program with a mistake, and waits until it says what is wrong.
async fn complains(
    name: &'static str,
    env: &[(&str, &str)],
    said: &str,
    mistake: &str,
) -> Result<()> {
    let heard = Heard::start(name, env)?;
    heard.program.line(said, DEADLINE).await.with_context(|| format!("{name}: {said}"))?;
    // Those that cannot start have ended; those that wait are ended.
    if heard.program.wait(Duration::from_secs(1)).await.is_err() {
        heard.program.terminate().await?;
    }
    let told = heard.program.output().join("\n");
    hides(name, &told, &[mistake], &[USER])
}
