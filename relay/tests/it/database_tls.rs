//! TLS to PostgreSQL: servers of their own, with certificates of an authority that is made on the spot.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use relay::connector_config::{ClientCertificate, DatabaseConfig, DatabaseTls, TlsMode};
use relay::secret::Secret;
use relay::source::SourceError;
use relay::source::connection::{Connection, Purpose};
use sqlx::{Connection as _, PgConnection};
use testbed::server::{Authority, Identity, Options, Postgres, RunFolder};
use testbed::{PostgresDatabase, Settings, eventually, servers, unique_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::outbox::{DEADLINE, Outbox, records};

/// What a client sends to ask for TLS (PostgreSQL's documentation, "Message Formats": SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A server whose certificate is for `localhost` alone, and the authority's files.
struct Secured {
    // In the order in which they are to go.
    postgres: Postgres,
    folder: RunFolder,
    authority: Authority,
    database: PostgresDatabase,
}

impl Secured {
    async fn start() -> Result<Self> {
        let authority = Authority::new()?;
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let tls = Some(authority.issue("server", &["localhost"])?);
        let options = Options { tls, ..Options::for_tests() };
        let quiet = Arc::new(|_: &str| {}) as _;
        let postgres = Postgres::start(&settings, &folder, options, &quiet).await?;
        let name = unique_name("db");
        let database = postgres.create_database(&name, &name, &unique_name("pw")).await?;
        Ok(Self { postgres, folder, authority, database })
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Replaces pg_hba.conf; the administrator may always come in, and replicate.
    async fn admit(&self, lines: &str) -> Result<()> {
        let admin = self.postgres.admin();
        let lines = format!("host all,replication {} all scram-sha-256\n{lines}", admin.user);
        let mut sql = PgConnection::connect(&admin.url()).await?;
        let (file,): (String,) = sqlx::query_as("show hba_file").fetch_one(&mut sql).await?;
        // The server's own user writes it, so that it stays its own.
        let rows = lines.replace('\n', "'), ('");
        let copy = format!("copy (select * from (values ('{rows}')) lines) to '{file}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(copy)).execute(&mut sql).await?;
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut sql).await?;
        let loaded = "select count(*) > 0 from pg_hba_file_rules where auth_method = 'reject' \
                      or 'clientcert=verify-ca' = any(options)";
        eventually("the new pg_hba.conf", DEADLINE, || async {
            let mut sql = PgConnection::connect(&admin.url()).await?;
            let (done,): (bool,) = sqlx::query_as(loaded).fetch_one(&mut sql).await?;
            Ok(done.then_some(()))
        })
        .await
    }

    fn config(&self, host: &str, tls: DatabaseTls) -> DatabaseConfig {
        DatabaseConfig { host: host.to_owned(), tls, ..config(&self.database) }
    }
}

fn config(database: &PostgresDatabase) -> DatabaseConfig {
    DatabaseConfig {
        host: database.host.clone(),
        port: database.port,
        user: database.user.clone(),
        password: Secret::new(database.password.clone()),
        name: database.name.clone(),
        tls: DatabaseTls::default(),
        initial_statements: Vec::new(),
        dial_instead: None,
    }
}

fn mode(mode: TlsMode) -> DatabaseTls {
    DatabaseTls { mode, ..DatabaseTls::default() }
}

/// Whether the connection is encrypted, as the server sees it.
async fn is_encrypted(config: &DatabaseConfig) -> Result<bool, SourceError> {
    let mut connection = Connection::open(config, Purpose::Query).await?;
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let rows = connection.query("ask for TLS", sql).await?;
    Ok(rows[0][0].as_deref() == Some("t"))
}

async fn refusal(config: &DatabaseConfig) -> Result<String> {
    match Connection::open(config, Purpose::Query).await {
        Ok(_) => bail!("let in"),
        Err(error @ SourceError::Tls { .. }) => Ok(error.to_string()),
        Err(error) => bail!("another error: {error}"),
    }
}

#[tokio::test]
async fn sslmode_says_whether_to_encrypt_and_whom_to_believe() -> Result<()> {
    let server = Secured::start().await?;
    for (given, encrypted) in [
        (TlsMode::Disable, false),
        (TlsMode::Allow, false),
        (TlsMode::Prefer, true),
        (TlsMode::Require, true),
    ] {
        let got = is_encrypted(&server.config("127.0.0.1", mode(given))).await?;
        assert_eq!(got, encrypted, "{given:?}");
    }
    let trusted = server.file("ca.pem", server.authority.certificate())?;
    let foreign = server.file("foreign.pem", Authority::new()?.certificate())?;
    let with = |mode, roots: Option<&PathBuf>| DatabaseTls {
        mode,
        root_certificates: roots.cloned(),
        client: None,
    };
    let full = with(TlsMode::VerifyFull, Some(&trusted));
    assert!(is_encrypted(&server.config("localhost", full.clone())).await?);
    assert!(
        is_encrypted(&server.config("127.0.0.1", with(TlsMode::VerifyCa, Some(&trusted)))).await?
    );

    let other_host = refusal(&server.config("127.0.0.1", full)).await?;
    assert!(other_host.contains("it is for another host"), "{other_host}");
    for roots in [Some(&foreign), None] {
        let unknown = refusal(&server.config("localhost", with(TlsMode::VerifyCa, roots))).await?;
        assert!(unknown.contains("database.sslrootcert"), "{unknown}");
    }
    let missing = with(TlsMode::VerifyFull, Some(&PathBuf::from("/nowhere/ca.pem")));
    let missing = refusal(&server.config("localhost", missing)).await?;
    assert!(missing.contains("database.sslrootcert: /nowhere/ca.pem cannot be read"), "{missing}");

    let without = servers().await?.postgres_database().await?;
    let none = refusal(&DatabaseConfig { tls: mode(TlsMode::Require), ..config(&without) }).await?;
    assert!(none.contains("the server has no TLS"), "{none}");
    assert!(!is_encrypted(&config(&without)).await?);
    Ok(())
}

#[tokio::test]
async fn allow_and_prefer_try_the_other_kind_where_the_server_wants_it() -> Result<()> {
    let server = Secured::start().await?;
    let user = &server.database.user;
    let want =
        |kind: &str| format!("{kind} all {user} all scram-sha-256\nhost all all all reject\n");
    server.admit(&want("hostssl")).await?;
    assert!(is_encrypted(&server.config("localhost", mode(TlsMode::Allow))).await?);
    let disabled = is_encrypted(&server.config("localhost", mode(TlsMode::Disable))).await;
    assert!(matches!(disabled, Err(SourceError::Server { .. })), "{disabled:?}");
    server.admit(&want("hostnossl")).await?;
    eventually("connections without TLS", DEADLINE, || async {
        Ok((!is_encrypted(&server.config("localhost", mode(TlsMode::Prefer))).await?).then_some(()))
    })
    .await?;
    let required = is_encrypted(&server.config("localhost", mode(TlsMode::Require))).await;
    assert!(matches!(required, Err(SourceError::Server { .. })), "{required:?}");
    Ok(())
}

#[tokio::test]
async fn events_flow_over_tls_with_a_client_certificate() -> Result<()> {
    let server = Secured::start().await?;
    let user = &server.database.user;
    // The owner's own connection, which makes the tables, comes without TLS.
    server
        .admit(&format!(
            "hostssl all {user} all scram-sha-256 clientcert=verify-ca\nhostnossl all {user} all scram-sha-256\n"
        ))
        .await?;
    let identity = server.authority.issue("relay", &[])?;
    let roots = server.file("ca.pem", server.authority.certificate())?;
    let certificate = server.file("relay.crt", &identity.certificate)?;
    let key = server.file("relay.key", &identity.key)?;
    let text = |path: &PathBuf| path.display().to_string();
    let mut own = server.database.clone();
    own.name.push_str("?sslmode=disable");
    let mut outbox = Outbox::on(own)
        .await?
        .with("database.dbname", &server.database.name)
        .with("database.hostname", "localhost")
        .with("database.sslmode", "verify-full")
        .with("database.sslrootcert", &text(&roots))
        .with("database.sslcert", &text(&certificate))
        .with("database.sslkey", &text(&key));
    let (task, control) = outbox.start(10, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    // Larger than a record of TLS, and than one read.
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ('Order', '2', 'OrderCreated', jsonb_build_object('pad', repeat('x', 600000)))",
        )
        .await?;
    let records = records(&control, 2).await?;
    ensure!(records[1].value.as_deref().is_some_and(|value| value.len() > 600_000));
    let encrypted = "select string_agg(ssl::text || ' ' || client_dn, ',') from pg_stat_ssl \
                     join pg_stat_replication using (pid)";
    assert_eq!(outbox.value(encrypted).await?.as_deref(), Some("true /CN=relay"));
    task.stop().await;

    // The form of PostgreSQL's Java driver.
    let key = server.file("relay.pk8", &identity.key_der)?;
    let client = Some(ClientCertificate { certificate, key });
    let der = DatabaseTls { mode: TlsMode::Require, root_certificates: None, client };
    assert!(is_encrypted(&server.config("localhost", der)).await?);
    let bare = is_encrypted(&server.config("localhost", mode(TlsMode::Require))).await;
    let Err(SourceError::Server { error, .. }) = bare else { bail!("let in: {bare:?}") };
    assert!(error.message.contains("client certificate"), "{error}");
    Ok(())
}

/// Takes one connection, decrypts it with a certificate of its own, and hands it on to the server, encrypted again.
async fn sit_between(listener: TcpListener, own: Identity, server: (String, u16)) -> Result<()> {
    let provider = || Arc::new(crypto::ring::default_provider());
    let (mut client, _) = listener.accept().await?;
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    ensure!(request == SSL_REQUEST);
    client.write_all(b"S").await?;
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
    let acceptor = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let mut client = TlsAcceptor::from(Arc::new(acceptor)).accept(client).await?;

    let mut onward = TcpStream::connect(server).await?;
    onward.write_all(&SSL_REQUEST).await?;
    ensure!(onward.read_u8().await? == b'S');
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(own.authority.as_bytes())?)?;
    let connector = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    let mut onward = TlsConnector::from(Arc::new(connector)).connect(name, onward).await?;
    // Ends when one side hangs up, as it should.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut onward).await;
    Ok(())
}

#[tokio::test]
async fn a_password_is_bound_to_the_session_so_that_nobody_in_between_can_use_it() -> Result<()> {
    let server = Secured::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let own = server.authority.issue("in between", &["localhost"])?;
    let target = (server.database.host.clone(), server.database.port);
    let between = tokio::spawn(sit_between(listener, own, target));
    // Even its certificate is believed.
    let roots = server.file("ca.pem", server.authority.certificate())?;
    let tls =
        DatabaseTls { mode: TlsMode::VerifyFull, root_certificates: Some(roots), client: None };
    let through = DatabaseConfig { port, ..server.config("localhost", tls.clone()) };
    let refused = Connection::open(&through, Purpose::Query).await.map(|_| ());
    let Err(SourceError::Server { error, .. }) = refused else { bail!("let in: {refused:?}") };
    assert!(error.message.contains("channel binding"), "{error}");
    between.await?.context("the one in between")?;
    assert!(is_encrypted(&server.config("localhost", tls)).await?);
    Ok(())
}
