//! `cargo demo` as its user meets it: exit codes, what it says, and that nothing outlives it.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use testbed::{Program, eventually, free_port, program, servers, topic, unique_name};

use crate::supervision::{all_gone, descendants};

/// A start of all servers on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

const FREE_PORTS: [&str; 12] = [
    "--postgres-port",
    "0",
    "--mysql-port",
    "0",
    "--kafka-port",
    "0",
    "--relay-port",
    "0",
    "--order-port",
    "0",
    "--shipment-port",
    "0",
];

/// Built here, where cargo knows what the tests were built with; the demo itself is told that there is nothing to build.
const NO_BUILD: (&str, &str) = ("CARGO", "true");

fn build() {
    for name in ["order-service", "relay", "shipment-service", "demo"] {
        program(name).unwrap();
    }
}

fn demo(arguments: &[&str], cargo: &str) -> Program {
    let arguments = [arguments, &FREE_PORTS].concat();
    Program::start(program("demo").unwrap(), &arguments, &[("CARGO", cargo)]).unwrap()
}

#[tokio::test]
async fn the_scenario_holds_although_nobody_reads_to_the_end() {
    tokio::task::spawn_blocking(|| {
        build();
        let mut demo = Command::new(program("demo").unwrap())
            .arg("--once")
            .args(FREE_PORTS)
            .env(NO_BUILD.0, NO_BUILD.1)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // As `| head -2` does.
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "");
        assert_eq!(lines.next().unwrap().unwrap(), "Starting");
        drop(lines);
        let mut errors = String::new();
        demo.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let status = demo.wait().unwrap();
        assert!(status.success() && !errors.contains("panicked"), "{status} {errors}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_followed_topic_ends_when_nobody_reads_any_more() {
    tokio::task::spawn_blocking(build).await.unwrap();
    let brokers = servers().await.unwrap().bootstrap_servers();
    let topic = unique_name("followed");
    for value in ["a", "b"] {
        topic::produce(brokers, &topic, None, &[], Some(value.as_bytes())).await.unwrap();
    }
    let port = brokers.rsplit_once(':').unwrap().1;
    let mut following = Command::new(program("demo").unwrap())
        .args(["topic", &topic, "--follow", "--kafka-port", port])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // As `| head -1` does.
    let mut output = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    let line = tokio::task::spawn_blocking(move || output.read_line(&mut line).map(|_| line));
    assert!(line.await.unwrap().unwrap().starts_with(&topic));
    topic::produce(brokers, &topic, None, &[], Some(b"c")).await.unwrap();
    let ended = eventually("end", DEADLINE, || {
        std::future::ready(following.try_wait().map_err(Into::into))
    });
    assert!(ended.await.unwrap().success());
}

#[tokio::test]
async fn a_part_that_ends_by_itself_is_told_and_the_stop_leaves_nothing() {
    tokio::task::spawn_blocking(build).await.unwrap();
    let demo = demo(&["--no-scenario"], NO_BUILD.1);
    demo.line("Ctrl-C stops everything", DEADLINE).await.unwrap();
    let processes = descendants(demo.pid());
    assert!(processes.len() >= 6, "{processes:?}");
    let order_service = processes.iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "order-service"
    });
    kill(*order_service.unwrap());
    let told = demo.line("order-service has ended by itself", DEADLINE).await.unwrap();
    assert!(told.contains("SIGKILL"), "{told}");
    let status = demo.terminate().await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", demo.tail());
    all_gone(&processes).await;
}

#[tokio::test]
async fn ctrl_c_ends_a_demo_that_is_up_in_order_and_kill_9_takes_everything_along() {
    tokio::task::spawn_blocking(build).await.unwrap();
    let demos =
        [Signal::INT, Signal::KILL].map(|signal| (demo(&["--no-scenario"], NO_BUILD.1), signal));
    for (demo, signal) in demos {
        let data = demo.line("data and logs: ", DEADLINE).await.unwrap();
        let data = Path::new(data.split("data and logs: ").nth(1).unwrap());
        demo.line("Ctrl-C stops everything", DEADLINE).await.unwrap();
        let processes = descendants(demo.pid());
        assert!(processes.len() >= 6, "{processes:?}");
        demo.signal(signal);
        let status = demo.wait(DEADLINE).await.unwrap();
        all_gone(&processes).await;
        if signal == Signal::INT {
            assert!(status.success() && !data.exists(), "{status}\n{}", demo.tail());
        } else {
            // Nobody is left to remove it at once; a later run would.
            fs::remove_dir_all(data).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stop_during_the_build_ends_the_build_with_all_it_started() {
    tokio::task::spawn_blocking(build).await.unwrap();
    // A cargo with a compiler below it, neither of which would end in time.
    let folder = tempfile::tempdir().unwrap();
    let cargo = script(folder.path(), "cargo", "sleep 600 & wait");
    let demo = demo(&["--once"], &cargo);
    let processes = eventually("build with its compiler", DEADLINE, || async {
        let processes = descendants(demo.pid());
        Ok((processes.len() >= 2).then_some(processes))
    });
    let processes: HashSet<u32> = processes.await.unwrap();
    let status = demo.terminate().await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", demo.tail());
    assert!(demo.tail().contains("the build is stopped"), "{}", demo.tail());
    all_gone(&processes).await;
}

#[tokio::test]
async fn a_demo_that_is_killed_during_the_build_takes_cargo_along() {
    tokio::task::spawn_blocking(build).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cargo = script(folder.path(), "cargo", "exec sleep 600");
    let demo = demo(&["--once"], &cargo);
    let processes = eventually("build", DEADLINE, || async {
        let processes = descendants(demo.pid());
        // Past the guard: before that it asks for itself whether we are still there.
        let is_cargo = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        };
        Ok(processes.iter().any(is_cargo).then_some(processes))
    });
    let processes = processes.await.unwrap();
    // To the demo alone: its group would have cargo in it.
    demo.signal(Signal::KILL);
    all_gone(&processes).await;
}

#[tokio::test]
async fn a_port_that_is_given_twice_is_refused_before_anything_starts() {
    tokio::task::spawn_blocking(build).await.unwrap();
    let port = free_port().to_string();
    let arguments = ["--once", "--kafka-port", &port, "--relay-port", &port];
    let demo = Program::start(program("demo").unwrap(), &arguments, &[NO_BUILD]).unwrap();
    let status = demo.wait(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let said = demo.output().join("\n");
    assert!(said.contains(&format!("--kafka-port and --relay-port are both {port}")), "{said}");
    assert!(!said.contains("Starting"), "{said}");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// A program that runs these lines of a shell.
fn script(folder: &Path, name: &str, lines: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}
