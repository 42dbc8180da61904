//! The supervisor's side: starts the servers, answers clients, and stops the servers when nobody needs them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};

use super::{Addresses, Hello, Login, ProcessId, Reply, short_path};
use crate::config::Settings;
use crate::process;
use crate::server::{Progress, RunFolder, ServerSet, SetOptions};

/// Who starts a supervisor joins it at once; if nobody does, it was killed meanwhile.
const FIRST_CLIENT_BOUND: Duration = Duration::from_secs(20);

/// How often the `cargo` processes are looked at.
const CARGO_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Who needs the servers.
#[derive(Default)]
struct Users {
    connections: usize,
    cargos: HashSet<ProcessId>,
}

/// Serves the socket in `folder` until nobody needs the servers, then stops them. SIGTERM and SIGINT end it, too.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(folder: &Path) -> Result<()> {
    let directory = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    let socket = short_path(&directory);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).context("bind the socket")?;
    let users = Arc::new(Mutex::new(Users::default()));
    let (state, clients_state) = watch::channel(Reply::Progress(String::new()));
    let servers = tokio::spawn(start_servers(state));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut check = interval(CARGO_CHECK_INTERVAL);
    let first_client_until = Instant::now() + FIRST_CLIENT_BOUND;
    let mut had_client = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break println!("stopping: SIGTERM"),
            _ = interrupt.recv() => break println!("stopping: SIGINT"),
            Ok((connection, _)) = listener.accept() => {
                had_client = true;
                users.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
                let (users, state) = (Arc::clone(&users), clients_state.clone());
                tokio::spawn(async move {
                    let _ = attend(connection, &users, state).await;
                    users.lock().unwrap_or_else(PoisonError::into_inner).connections -= 1;
                });
            }
            _ = check.tick(), if had_client => {
                if is_unused(&users) {
                    break println!("stopping: nobody needs the servers any more");
                }
            }
            () = sleep_until(first_client_until), if !had_client => {
                break println!("stopping: nobody came");
            }
        }
    }
    // In this order: who comes now finds no socket and starts the next supervisor.
    let _ = fs::remove_file(&socket);
    drop(listener);
    servers.abort();
    if let Ok(Ok((mut servers, folder))) = servers.await {
        servers.stop().await;
        drop(folder);
        println!("stopped");
    }
    Ok(())
}

fn is_unused(users: &Mutex<Users>) -> bool {
    let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
    users.cargos.retain(|cargo| {
        process::stat(cargo.pid).is_some_and(|stat| stat.start_time == cargo.start_time)
    });
    users.connections == 0 && users.cargos.is_empty()
}

async fn start_servers(state: watch::Sender<Reply>) -> Result<(ServerSet, RunFolder)> {
    let state = Arc::new(state);
    let said = Arc::clone(&state);
    let progress: Progress = Arc::new(move |text: &str| {
        println!("{text}");
        said.send_replace(Reply::Progress(text.to_owned()));
    });
    let started = start_set(&progress).await;
    match &started {
        Ok((servers, folder)) => {
            println!(
                "ready: {}, {}, {}; data and logs in {}",
                servers.postgres.version(),
                servers.mysql.version(),
                servers.kafka.version(),
                folder.path().display()
            );
            state.send_replace(Reply::Ready(Box::new(Addresses {
                supervisor: std::process::id(),
                postgres: Login::of_postgres(servers.postgres.admin()),
                mysql: Login::of_mysql(servers.mysql.admin()),
                bootstrap_servers: servers.kafka.bootstrap_servers().to_owned(),
            })));
        }
        Err(error) => {
            println!("failed: {error:#}");
            state.send_replace(Reply::Failed(format!("{error:#}")));
        }
    }
    started
}

async fn start_set(progress: &Progress) -> Result<(ServerSet, RunFolder)> {
    let settings = Settings::read();
    let folder = RunFolder::create(&settings, false)?;
    let servers = ServerSet::start(&settings, &folder, SetOptions::for_tests(), progress).await?;
    Ok((servers, folder))
}

/// Answers one client and returns when it has gone.
async fn attend(
    connection: UnixStream,
    users: &Mutex<Users>,
    mut state: watch::Receiver<Reply>,
) -> Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    let hello: Hello = serde_json::from_str(&line)?;
    users.lock().unwrap_or_else(PoisonError::into_inner).cargos.extend(hello.cargo);
    loop {
        let (reply, is_last) = {
            let reply = state.borrow_and_update();
            let is_empty = matches!(&*reply, Reply::Progress(text) if text.is_empty());
            let line = serde_json::to_string(&*reply)? + "\n";
            ((!is_empty).then_some(line), !matches!(&*reply, Reply::Progress(_)))
        };
        if let Some(reply) = reply {
            connection.write_all(reply.as_bytes()).await?;
        }
        if is_last {
            break;
        }
        tokio::select! {
            changed = state.changed() => changed?,
            // A client that goes while it waits.
            read = connection.fill_buf() => if read?.is_empty() { return Ok(()) },
        }
    }
    let mut rest = [0; 64];
    while connection.read(&mut rest).await? > 0 {}
    Ok(())
}
