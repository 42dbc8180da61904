//! `slot.*` and what is told to the server, on a real PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::outbox::{Outbox, keys, records, running, trace_of_failure};

#[tokio::test]
async fn the_slot_is_given_up_at_a_stop_only_when_that_is_asked_for() -> Result<()> {
    for (asked_for, left) in [("true", false), ("false", true)] {
        let mut outbox = Outbox::new().await?.with("slot.drop.on.stop", asked_for);
        let (task, control) = outbox.start(100, true)?;
        outbox.streaming().await?;
        outbox.emit("1").await?;
        records(&control, 1).await?;
        task.stop().await;
        let slots = outbox.slots().await?;
        assert_eq!(slots == outbox.slot, left, "{asked_for}: {slots}");
    }
    Ok(())
}

#[tokio::test]
async fn stream_parameters_reach_pgoutput() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("slot.stream.params", "origin=nowhere;");
    let (task, _control) = outbox.start(100, true)?;
    let version = outbox.value("current_setting('server_version_num')::int >= 160000").await?;
    // Known since PostgreSQL 16, which then refuses the value.
    let trace = trace_of_failure(&task).await?;
    let refused =
        if version.as_deref() == Some("true") { "nowhere" } else { "unrecognized pgoutput option" };
    assert!(trace.contains("origin") && trace.contains(refused), "{trace}");
    Ok(())
}

#[tokio::test]
async fn a_slot_that_is_to_fail_over_is_made_where_the_server_cannot_do_it_as_well() -> Result<()> {
    for mode in ["initial", "no_data"] {
        let mut outbox =
            Outbox::new().await?.with("slot.failover", "true").with("snapshot.mode", mode);
        let (task, control) = outbox.start(100, true)?;
        outbox.streaming().await?;
        outbox.emit("1").await?;
        assert_eq!(keys(&records(&control, 1).await?), ["1"]);
        task.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_server_hears_of_an_idle_stream_in_the_interval_that_is_given() -> Result<()> {
    const TOLD: &str = "select reply_time from pg_stat_replication r join pg_replication_slots s \
                        on s.active_pid = r.pid and s.database = current_database()";
    // Whose connections are listed with their times.
    let outbox = Outbox::new().await?.with("status.update.interval.ms", "100");
    let mut outbox = outbox.with_superuser().await?;
    let (task, _control) = outbox.start(100, true)?;
    // The slot is active before, while it is made of that of the snapshot.
    running(&task).await?;
    let begun = Instant::now();
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 5 {
        told.extend(outbox.value(TOLD).await?);
        // Without the option it is told every ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(20), "{told:?}");
    }
    task.stop().await;
    Ok(())
}
