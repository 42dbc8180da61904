//! Builds, starts, plays, stays, stops: the demo's life, whatever ends it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testbed::Settings;
use testbed::deployment::{Deployment, DeploymentOptions, Event, Observer, Programs};
use testbed::server::RunFolder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Cli;
use crate::screen::Screen;
use crate::{hints, scenario};

/// A line of a program, and when it came.
pub(crate) struct LogLine {
    pub(crate) at: Instant,
    pub(crate) program: String,
    pub(crate) text: String,
}

/// The programs stop within 10 s each, the servers within 20 s; all at the same time.
const STOP_BOUND: Duration = Duration::from_secs(40);

/// Lines that wait to be shown, when the terminal stands still (a pager, Ctrl-S).
const LINES_WAITING_MAX: usize = 10_000;

/// How often we look whether everything still runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the demo. `false` when the scenario did not hold.
pub(crate) async fn launch(cli: &Cli, settings: &Settings) -> Result<bool> {
    let mut signals = Signals::install()?;
    let screen = Screen::new(settings.no_color);
    let (ports, flags) = cli.ports();
    refuse_unusable_ports(&flags)?;
    let programs = tokio::select! {
        built = tokio::task::spawn_blocking(Programs::build_showing_progress) => built??,
        name = signals.next() => {
            testbed::stop_building();
            bail!("{name} while the programs were being built; the build is stopped");
        }
    };
    let folder = RunFolder::create(settings, cli.keep)?;
    screen.title("Starting");
    screen.note(&format!("data and logs: {}", folder.path().display()));
    let (observer, mut lines) = observer(screen);
    let options = DeploymentOptions {
        ports,
        durable: true,
        with_relay: true,
        links: None,
        controller_apart: false,
        observer,
    };
    let starting = Deployment::start(settings, folder.clone(), programs, options);
    let mut deployment = tokio::select! {
        started = Box::pin(starting) => started?,
        name = signals.next() => bail!("{name} before everything was up; everything is stopped"),
    };
    let outcome = tokio::select! {
        outcome = Box::pin(play_and_stay(cli, screen, &deployment, &mut lines)) => outcome,
        name = signals.next() => {
            screen.title(&format!("{name}: stopping"));
            // Asked to end where the user was meant to end it: a success. In the middle of a check: not.
            if cli.once { Err(anyhow::anyhow!("{name} before the scenario had ended")) } else { Ok(true) }
        }
    };
    let stopped = tokio::time::timeout(STOP_BOUND, deployment.stop());
    let late = tokio::select! {
        late = stopped => late.unwrap_or_else(|_| vec![format!("not stopped within {STOP_BOUND:?}")]),
        name = signals.next() => vec![format!("{name} again: killed")],
    };
    late.iter().for_each(|problem| screen.bad(problem));
    drop(deployment);
    if cli.keep {
        screen.note(&format!("kept: {}", folder.path().display()));
    }
    Ok(outcome? && late.is_empty())
}

async fn play_and_stay(
    cli: &Cli,
    screen: Screen,
    deployment: &Deployment,
    lines: &mut mpsc::Receiver<LogLine>,
) -> Result<bool> {
    let mut held = true;
    if !cli.no_scenario {
        held = Box::pin(scenario::play(screen, deployment, lines)).await?;
        if !held {
            for part in [&deployment.order_service, &deployment.relay, &deployment.shipment_service]
            {
                let tail = part.program().map(testbed::Program::tail).unwrap_or_default();
                screen.plain(&format!("{tail}\n"));
            }
        }
    }
    if cli.once {
        return Ok(held);
    }
    hints::print(screen, deployment.ports, !cli.no_scenario);
    show_what_happens(screen, deployment, lines).await;
    Ok(held)
}

/// What the programs say, until nobody reads it any more; and when something has ended that nobody stopped.
async fn show_what_happens(
    screen: Screen,
    deployment: &Deployment,
    lines: &mut mpsc::Receiver<LogLine>,
) {
    let mut told = Vec::new();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(LogLine { program, text, .. }) = line else { return };
                if screen.log(&program, &text).is_err() {
                    return;
                }
            }
            _ = look.tick() => {
                for (name, status) in deployment.ended() {
                    if !told.contains(&name) {
                        told.push(name);
                        screen.bad(&format!("{name} has ended by itself ({status}); Ctrl-C stops the rest"));
                    }
                }
            }
        }
    }
}

fn observer(screen: Screen) -> (Observer, mpsc::Receiver<LogLine>) {
    let (sender, lines) = mpsc::channel(LINES_WAITING_MAX);
    let observer = move |event: Event<'_>| match event {
        Event::Progress(text) => screen.note(text),
        Event::Ready { name, address, version, after } => {
            screen.ready(name, address, version, after);
        }
        Event::Line { program, line } => {
            let (program, text) = (program.to_owned(), line.to_owned());
            // What finds no room is in the program's log file.
            let _ = sender.try_send(LogLine { at: Instant::now(), program, text });
        }
    };
    (Arc::new(observer), lines)
}

/// All that is wrong with them at once, each with the flag that moves it.
fn refuse_unusable_ports(flags: &[(&'static str, u16)]) -> Result<()> {
    let problem = |(index, (flag, port)): (usize, &(&'static str, u16))| {
        let earlier = flags.iter().take(index).find(|(_, taken)| taken == port);
        if let Some((other, _)) = earlier {
            return Some(format!("{other} and {flag} are both {port}; give each its own port"));
        }
        let error = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).err()?;
        let reason = match error.kind() {
            ErrorKind::AddrInUse => "is taken".to_owned(),
            _ => format!("cannot be used ({error})"),
        };
        Some(format!("port {port} {reason}; move it with {flag} PORT (0: a free one)"))
    };
    let problems: Vec<String> = flags.iter().enumerate().filter_map(problem).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n      "));
    }
    Ok(())
}

/// What asks us to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Self> {
        let install = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            hangup: install(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_moves_it() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = refuse_unusable_ports(&[("--kafka-port", port)]).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--kafka-port"), "{error}");
        drop(taken);
        refuse_unusable_ports(&[("--kafka-port", port)]).unwrap();
    }

    #[test]
    fn a_port_that_is_given_twice_is_named_with_both_flags() {
        let port = testbed::free_port();
        let flags = [("--kafka-port", port), ("--relay-port", port)];
        let error = refuse_unusable_ports(&flags).unwrap_err().to_string();
        let expected = format!("--kafka-port and --relay-port are both {port}");
        assert!(error.contains(&expected), "{error}");
    }
}
