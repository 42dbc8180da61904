//! A database and a Kafka that ask for TLS and a login: servers of their own, with certificates made on the spot.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, MySqlConnection};
use testbed::server::{
    Authority, IdentityProvider, Kafka, KafkaSecurity, MySql, Options, RunFolder, TokenClient,
};
use testbed::{Settings, eventually, unique_name};

use super::fixture::{Record, SOON, Service, World};

#[tokio::test]
async fn a_service_makes_shipments_behind_tls_and_logins_and_shows_no_secret() -> Result<()> {
    let settings = Settings::read();
    let folder = RunFolder::create(&settings, false)?;
    let quiet = Arc::new(|_: &str| {}) as _;
    let authority = Authority::new()?;
    let identity = authority.issue("server", &["localhost"])?;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.certificate())?;
    let ca = ca.to_str().context("a path")?;
    let security = KafkaSecurity::new(identity.clone(), "shipments", &unique_name("pw"));
    let (kafka, mysql) = tokio::try_join!(
        Kafka::start_with(&settings, &folder, Options::for_tests(), Some(&security), &quiet),
        MySql::start(
            &settings,
            &folder,
            Options { tls: Some(identity), ..Options::for_tests() },
            &quiet
        ),
    )?;
    let name = unique_name("db");
    let database = mysql.create_database(&name, &name, &unique_name("pw")).await?;
    only_with_tls(&mysql, &name).await?;

    let world = World::with(database, kafka.bootstrap_servers()).await?;
    let password = folder.path().join("password");
    fs::write(&password, format!("{}\n", security.password))?;
    let url = world.mysql.url().replace("127.0.0.1", "localhost");
    let with = |tls: &str, password: &str| {
        let mut variables = world.variables();
        variables[0].1 = format!("{url}?{tls}");
        variables[1].1 = security.sasl_ssl();
        variables.extend([
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
            ("KAFKA_SASL_USERNAME", security.user.clone()),
            ("KAFKA_SASL_PASSWORD_FILE", password.to_owned()),
            ("KAFKA_SSL_CA_LOCATION", ca.to_owned()),
            ("RUST_LOG", "debug".to_owned()),
        ]);
        variables
    };
    let verified = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}");
    let service = Service::start(&with(&verified, &password.display().to_string()))?;
    service.ready().await?;
    world.send(&Record::order_created(7)).await?;
    assert_eq!(world.shipments(1).await?, [7]);
    let mut poison = Record::order_created(8);
    poison.value = Some(b"no json".to_vec());
    world.send(&poison).await?;
    world.dead_letters(1).await?;
    service.program.terminate().await?;

    // What does not open the doors: no TLS, an authority that nobody knows, a wrong password.
    let wrong = folder.path().join("wrong");
    let mistake = unique_name("mistake");
    fs::write(&wrong, &mistake)?;
    let wrong = wrong.display().to_string();
    let plain = Service::start(&with("ssl-mode=DISABLED", &wrong))?;
    let line = plain.says("Waiting for MySQL").await?;
    ensure!(line.contains("Access denied"), "{line}");
    // As a field, unlike in librdkafka's own lines.
    let line = plain.says("error=\"sasl_ssl://").await?;
    ensure!(line.contains("Waiting for Kafka"), "{line}");
    ensure!(line.contains("Authentication failed"), "{line}");
    let unknown = Service::start(&with("ssl-mode=VERIFY_IDENTITY", &wrong))?;
    let line = unknown.says("Waiting for MySQL").await?;
    ensure!(line.contains("certificate"), "{line}");
    for service in [&plain, &unknown] {
        service.program.terminate().await?;
    }
    for service in [&service, &plain, &unknown] {
        shows_none_of(service, &[&security.password, &mistake, &world.mysql.password])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_comes_in_with_tokens_and_fetches_new_ones_while_it_runs() -> Result<()> {
    let settings = Settings::read();
    let folder = RunFolder::create(&settings, false)?;
    let quiet = Arc::new(|_: &str| {}) as _;
    let authority = Authority::new()?;
    let identity = authority.issue("localhost", &["localhost"])?;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.certificate())?;
    let ca = ca.to_str().context("a path")?;
    // Short, so that the test sees the next one.
    let client = TokenClient::new(Duration::from_secs(10));
    let provider = IdentityProvider::start(client, Some(&identity)).await?;
    let security = KafkaSecurity::new(identity, "shipments", &unique_name("pw"));
    let security = security.trust_tokens(&provider);
    let options = Options::for_tests();
    let kafka = Kafka::start_with(&settings, &folder, options, Some(&security), &quiet).await?;
    let world = World::on(kafka.bootstrap_servers()).await?;
    let TokenClient { id, secret, .. } = provider.client();
    let with = |secret: &str| {
        let mut variables = world.variables();
        variables[1].1 = security.sasl_ssl();
        variables.extend([
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
            ("KAFKA_SSL_CA_LOCATION", ca.to_owned()),
            ("KAFKA_SASL_MECHANISM", "OAUTHBEARER".to_owned()),
            ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", provider.token_url()),
            ("KAFKA_SASL_OAUTHBEARER_CLIENT_ID", id.clone()),
            ("KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", secret.to_owned()),
            ("KAFKA_SASL_OAUTHBEARER_SCOPE", "orders shipments".to_owned()),
            ("KAFKA_HTTPS_CA_LOCATION", ca.to_owned()),
            ("RUST_LOG", "debug".to_owned()),
        ]);
        variables
    };
    let service = Service::start(&with(secret))?;
    service.ready().await?;
    world.send(&Record::order_created(7)).await?;
    assert_eq!(world.shipments(1).await?, [7]);
    // The broker lets nobody stay longer than the token is good. Each client has one of its own.
    let first = provider.issued();
    let renewed = || async { Ok((provider.issued() >= 2 * first).then_some(())) };
    eventually("the next tokens", SOON, renewed).await?;
    world.send(&Record::order_created(8)).await?;
    assert_eq!(world.shipments(2).await?, [7, 8]);
    let mut poison = Record::order_created(9);
    poison.value = Some(b"no json".to_vec());
    world.send(&poison).await?;
    world.dead_letters(1).await?;
    service.program.terminate().await?;
    assert!(provider.scopes().iter().all(|scope| scope == "orders shipments"));

    let mistake = unique_name("mistake");
    let shut = Service::start(&with(&mistake))?;
    // As a field, unlike in librdkafka's own lines.
    let line = shut.says("error=\"Failed to acquire SASL OAUTHBEARER token").await?;
    ensure!(line.contains("Waiting for Kafka") && line.contains("invalid_client"), "{line}");
    shut.program.terminate().await?;
    for service in [&service, &shut] {
        shows_none_of(service, &[secret, &mistake])?;
    }
    Ok(())
}

fn shows_none_of(service: &Service, secrets: &[&str]) -> Result<()> {
    let told = service.program.output().join("\n");
    for secret in secrets {
        ensure!(!told.contains(secret), "the log shows a secret");
    }
    Ok(())
}

async fn only_with_tls(mysql: &MySql, user: &str) -> Result<()> {
    let mut admin = MySqlConnection::connect(&mysql.admin().url()).await?;
    let only_tls = format!("alter user '{user}'@'%' require ssl");
    sqlx::raw_sql(sqlx::AssertSqlSafe(only_tls)).execute(&mut admin).await?;
    Ok(())
}
