//! The REST API behind a lock: TLS, users and tokens, other origins, too many callers.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use testbed::server::{Authority, Identity, RunFolder};
use testbed::{Settings, eventually, unique_name};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::connect_worker::{DEADLINE, Worker};

/// A worker without Kafka: its REST API is all that is looked at.
fn start(env: &[(&str, &str)]) -> Result<Worker> {
    Worker::start_only("127.0.0.1:1", &unique_name("door"), env)
}

/// Sends a request as it is, and returns the whole answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<String> {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let head = head.trim().replace('\n', "\r\n");
    let request = format!("{head}\r\nHost: relay\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Who hangs up without TLS's goodbye has answered all the same.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8(answer)?)
}

async fn answer(worker: &Worker, request: &str) -> Result<String> {
    eventually("an answer", DEADLINE, || async {
        Ok(Some(ask(TcpStream::connect(&worker.address).await?, request).await?))
    })
    .await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn client(authority: &str, identity: Option<&Identity>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?,
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[tokio::test]
async fn the_rest_api_speaks_tls_and_asks_for_certificates() -> Result<()> {
    let authority = Authority::new()?;
    let folder = RunFolder::create(&Settings::read(), false)?;
    let own = authority.issue("relay", &["localhost"])?;
    let store = folder.path().join("relay.pem");
    fs::write(&store, format!("{}{}", own.key, own.certificate))?;
    let address = format!("127.0.0.1:{}", testbed::free_port());
    let listeners = format!("https://{address}");
    let mut worker = start(&[
        ("CONNECT_LISTENERS", &listeners),
        ("CONNECT_LISTENERS_HTTPS_SSL_KEYSTORE_LOCATION", store.to_str().context("a path")?),
        ("CONNECT_LISTENERS_HTTPS_SSL_TRUSTSTORE_CERTIFICATES", authority.certificate()),
        ("CONNECT_LISTENERS_HTTPS_SSL_CLIENT_AUTH", "required"),
    ])?;
    worker.address = address;
    worker.program.line("REST API listens", DEADLINE).await?;
    let call = async |client: TlsConnector| {
        let stream = TcpStream::connect(&worker.address).await?;
        let stream = client.connect(ServerName::try_from("localhost")?, stream).await?;
        ask(stream, "GET /health/live HTTP/1.1").await
    };
    let caller = authority.issue("caller", &[])?;
    let live = call(client(authority.certificate(), Some(&caller))?).await?;
    assert_eq!(status(&live), "200", "{live}");
    let stranger = Authority::new()?.issue("stranger", &[])?;
    for identity in [None, Some(&stranger)] {
        let refused = call(client(authority.certificate(), identity)?).await;
        assert!(!refused.is_ok_and(|answer| answer.contains("HTTP/1.1 200")), "let in");
    }
    let foreign = call(client(Authority::new()?.certificate(), Some(&caller))?).await;
    assert!(foreign.is_err(), "its certificate is one of the authority alone");
    let plain = ask(TcpStream::connect(&worker.address).await?, "GET / HTTP/1.1").await;
    assert!(!plain.is_ok_and(|answer| answer.contains("HTTP/1.1")), "answers without TLS");
    worker.program.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn only_who_shows_a_credential_may_call_and_probes_stay_open() -> Result<()> {
    let folder = RunFolder::create(&Settings::read(), false)?;
    let (password, token) = (unique_name("pw"), unique_name("token"));
    let users = folder.path().join("users");
    fs::write(&users, format!("# who\nann={password}\n"))?;
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, format!("{token}\n"))?;
    let path = |path: &std::path::Path| path.display().to_string();
    let worker = start(&[
        ("RELAY_REST_USERS_FILE", &path(&users)),
        ("RELAY_REST_TOKENS_FILE", &path(&tokens)),
        ("RUST_LOG", "debug"),
    ])?;
    for probe in ["/health/live", "/health/live/"] {
        assert_eq!(status(&answer(&worker, &format!("GET {probe} HTTP/1.1")).await?), "200");
    }
    assert_eq!(status(&answer(&worker, "GET /health/ready HTTP/1.1").await?), "503");
    let http = reqwest::Client::new();
    let get = |path: &str| http.get(format!("http://{}{path}", worker.address)).timeout(DEADLINE);
    let closed =
        ["/", "/connectors", "/connectors/x/config", "/nowhere", "/admin/loggers", "/metrics"];
    for path in closed {
        let refused = get(path).send().await?;
        assert_eq!(refused.status().as_u16(), 401, "{path}");
        let asked: Vec<_> = refused.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(asked, ["Basic realm=\"relay\"", "Bearer realm=\"relay\""]);
        let body: serde_json::Value = refused.json().await?;
        assert_eq!(body["error_code"], 401);
    }
    let wrong = get("/nowhere").basic_auth("ann", Some(&token)).send().await?;
    assert_eq!(wrong.status().as_u16(), 401);
    let right = get("/nowhere").basic_auth("ann", Some(&password)).send().await?;
    assert_eq!(right.status().as_u16(), 404);
    assert_eq!(get("/nowhere").bearer_auth(&token).send().await?.status().as_u16(), 404);
    worker.program.terminate().await?;
    let output = worker.program.output().join("\n");
    ensure!(!output.contains(&password) && !output.contains(&token), "{output}");

    let empty = folder.path().join("empty");
    fs::write(&empty, "# nobody\n")?;
    let worker = start(&[("RELAY_REST_USERS_FILE", &path(&empty))])?;
    assert!(!worker.program.wait(DEADLINE).await?.success());
    assert!(worker.program.output().join("\n").contains("RELAY_REST_USERS_FILE"));
    Ok(())
}

#[tokio::test]
async fn other_origins_may_call_only_where_they_are_named() -> Result<()> {
    let asks =
        "OPTIONS /connectors HTTP/1.1\nOrigin: https://console\nAccess-Control-Request-Method: PUT";
    let calls = "GET /health/live HTTP/1.1\nOrigin: https://console";
    let shut = start(&[])?;
    for request in [asks, calls] {
        let answer = answer(&shut, request).await?.to_ascii_lowercase();
        assert!(!answer.contains("access-control"), "{answer}");
    }
    let open = start(&[
        ("CONNECT_ACCESS_CONTROL_ALLOW_ORIGIN", "https://console"),
        ("CONNECT_ACCESS_CONTROL_ALLOW_METHODS", "GET,PUT"),
    ])?;
    let asked = answer(&open, asks).await?.to_ascii_lowercase();
    assert!(asked.contains("access-control-allow-methods: get,put"), "{asked}");
    for answer in [asked, answer(&open, calls).await?.to_ascii_lowercase()] {
        assert!(answer.contains("access-control-allow-origin: https://console"), "{answer}");
    }
    let other = answer(&open, &calls.replace("console", "other")).await?.to_ascii_lowercase();
    assert!(!other.contains("access-control"), "{other}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_told_to_come_back_later() -> Result<()> {
    let worker = start(&[])?;
    worker.program.line("REST API listens", DEADLINE).await?;
    let mut held = Vec::new();
    // One more than there may be, each kept open.
    let mut last = String::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&worker.address).await?;
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: relay\r\n\r\n").await?;
        let mut answer = [0; 1024];
        let length = tokio::time::timeout(DEADLINE, stream.read(&mut answer)).await??;
        last = String::from_utf8_lossy(&answer[..length]).into_owned();
        if !last.starts_with("HTTP/1.1 200") {
            break;
        }
        held.push(stream);
    }
    assert!(last.starts_with("HTTP/1.1 503"), "{last}");
    assert!(last.contains("\"error_code\":503") && held.len() > 200, "{last}");
    drop(held);
    eventually("an answer again", DEADLINE, || async {
        let answer = answer(&worker, "GET /health/live HTTP/1.1").await?;
        Ok((status(&answer) == "200").then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_never_send_their_body_shut_nobody_out() -> Result<()> {
    let worker = start(&[])?;
    worker.program.line("REST API listens", DEADLINE).await?;
    let mut held = Vec::new();
    // As many as there may be connections, each of which promises a body.
    for path in ["/health", "/health/live", "/health/ready"].iter().cycle().take(256) {
        let mut stream = TcpStream::connect(&worker.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        held.push(stream);
    }
    eventually("an answer beside them", DEADLINE, || async {
        let answer = answer(&worker, "GET /health/live HTTP/1.1").await?;
        Ok((status(&answer) == "200").then_some(()))
    })
    .await?;
    for stream in &mut held {
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        ensure!(answer.starts_with("HTTP/1.1"), "no answer: {answer}");
    }
    Ok(())
}
