//! A database and a Kafka that ask for TLS and a login: servers of their own, with certificates made on the spot.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, MySqlConnection};
use testbed::server::{Authority, Kafka, KafkaSecurity, MySql, Options, RunFolder};
use testbed::{Settings, unique_name};

use super::fixture::{Record, Service, World};

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
        shows_none_of(service, [&security.password, &mistake, &world.mysql.password])?;
    }
    Ok(())
}

fn shows_none_of(service: &Service, secrets: [&str; 3]) -> Result<()> {
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
