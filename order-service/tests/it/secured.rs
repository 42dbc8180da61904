//! A database that asks for TLS: a server of its own, with certificates made on the spot.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use testbed::server::{Authority, Options, Postgres, RunFolder};
use testbed::{Program, Settings, unique_name};

use super::service::{DEADLINE, ORDER_REQUEST, Service, pool};

#[tokio::test]
async fn sslmode_in_the_url_says_whom_to_believe() -> Result<()> {
    let settings = Settings::read();
    let folder = RunFolder::create(&settings, false)?;
    let authority = Authority::new()?;
    let tls = Some(authority.issue("server", &["localhost"])?);
    let options = Options { tls, ..Options::for_tests() };
    let quiet = Arc::new(|_: &str| {}) as _;
    let postgres = Postgres::start(&settings, &folder, options, &quiet).await?;
    let name = unique_name("db");
    let database = postgres.create_database(&name, &name, &unique_name("pw")).await?;
    let write = |name: &str, pem: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, pem)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let known = write("ca.pem", authority.certificate())?;
    let foreign = write("foreign.pem", Authority::new()?.certificate())?;
    let url =
        |host: &str, tls: &str| format!("{}?{tls}", database.url().replace("127.0.0.1", host));

    let verified = url("localhost", &format!("sslmode=verify-full&sslrootcert={known}"));
    let service = Service::ready(&verified, &[]).await?;
    let placed = service.post("/orders", ORDER_REQUEST).await?;
    ensure!(placed.status.is_success(), "{}", placed.text);
    let sessions = "select count(*) filter (where ssl), count(*) from pg_stat_ssl \
                    join pg_stat_activity using (pid) where application_name = 'order-service'";
    let (encrypted, all): (i64, i64) =
        sqlx::query_as(sessions).fetch_one(&pool(&database.url()).await?).await?;
    ensure!(encrypted == all && all > 0, "{encrypted} of {all} sessions are encrypted");
    service.stop().await?;

    for (url, reason) in [
        // The foreign authority has the same name, but another key.
        (url("localhost", &format!("sslmode=verify-ca&sslrootcert={foreign}")), "BadSignature"),
        (
            url("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={known}")),
            "not valid for name",
        ),
    ] {
        let env = [("DATABASE_URL", &*url), ("HTTP_ADDRESS", "127.0.0.1:0"), ("RUST_LOG", "debug")];
        let program = Program::start(env!("CARGO_BIN_EXE_order-service"), &[], &env)?;
        let line = program.line("waiting for the database", DEADLINE).await?;
        ensure!(line.contains(reason), "{line}");
        program.terminate().await?;
        let told = program.output().join("\n");
        ensure!(!told.contains(&database.password), "the log shows the password");
    }
    Ok(())
}
