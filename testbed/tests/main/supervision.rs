//! The supervisor of the shared servers: how long it lives, and that nothing outlives it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testbed::supervisor::{Membership, join};
use testbed::{eventually, program};

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs (a zombie does not).
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn descendants(root: u32) -> HashSet<u32> {
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if parent(pid).is_some_and(|parent| found.contains(&parent)) {
                found.insert(pid);
            }
        }
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

async fn join_in(folder: &Path) -> Membership {
    let folder = folder.to_owned();
    let joining = move || join(&folder, None, || program("testbed-servers"));
    tokio::task::spawn_blocking(joining).await.unwrap().unwrap()
}

pub(crate) async fn all_gone(processes: &HashSet<u32>) {
    eventually("end of all processes", DEADLINE, || async {
        let left: Vec<_> = processes.iter().filter(|pid| is_alive(**pid)).collect();
        anyhow::ensure!(left.is_empty(), "still running: {left:?}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn clients_share_the_servers_which_end_with_the_last_client() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = tokio::join!(join_in(folder.path()), join_in(folder.path()));
    assert_eq!(first.addresses.supervisor, second.addresses.supervisor);
    assert_eq!(first.addresses.bootstrap_servers, second.addresses.bootstrap_servers);
    let mut processes = descendants(first.addresses.supervisor);
    assert!(processes.len() >= 3, "{processes:?}");
    processes.insert(first.addresses.supervisor);
    drop(first);
    let third = join_in(folder.path()).await;
    assert_eq!(third.addresses.supervisor, second.addresses.supervisor);
    drop((second, third));
    all_gone(&processes).await;
    assert!(!folder.path().join("servers.sock").exists());
    let log = fs::read_to_string(folder.path().join("servers.log")).unwrap();
    assert!(log.contains("nobody needs the servers"), "{log}");
    let data = log.split("data and logs in ").nth(1).unwrap().lines().next().unwrap();
    assert!(!Path::new(data).exists(), "{data} is still there");
}

#[tokio::test]
async fn a_killed_supervisor_takes_all_servers_along_and_the_next_client_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let first = join_in(folder.path()).await;
    let supervisor = first.addresses.supervisor;
    let processes = descendants(supervisor);
    assert!(processes.len() >= 3, "{processes:?}");
    let pid = Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    all_gone(&processes).await;
    let second = join_in(folder.path()).await;
    assert_ne!(second.addresses.supervisor, supervisor);
}
