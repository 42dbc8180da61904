//! Publications, partitions, several tables and replica identities, on a real PostgreSQL.

use anyhow::Result;

use crate::outbox::{Outbox, keys, records, trace_of_failure};

/// An outbox in two partitions.
const PARTITIONED: &str = "drop table inventory.outboxevent; \
    create table inventory.outboxevent (id uuid default gen_random_uuid(), aggregatetype text, \
    aggregateid text, type text, payload jsonb, primary key (id, aggregateid)) partition by list (aggregateid); \
    create table inventory.outboxevent_1 partition of inventory.outboxevent for values in ('1'); \
    create table inventory.outboxevent_2 partition of inventory.outboxevent default";

const TABLE: &str = "inventory.outboxevent";

async fn published(outbox: &mut Outbox) -> Result<String> {
    let tables = "select string_agg(pubname || ':' || tablename, ',' order by tablename) \
                  from pg_publication_tables where schemaname = 'inventory'";
    Ok(outbox.value(tables).await?.unwrap_or_default())
}

#[tokio::test]
async fn each_mode_makes_the_publication_that_it_says() -> Result<()> {
    for (mode, tables, for_all) in [
        ("all_tables", "mine:other,mine:outboxevent", "true"),
        ("filtered", "mine:outboxevent", "false"),
        ("no_tables", "", "false"),
    ] {
        let mut outbox = Outbox::new()
            .await?
            .with("publication.name", "mine")
            .with("publication.autocreate.mode", mode)
            .with_superuser()
            .await?;
        let (task, _control) = outbox.start(100, true)?;
        outbox.streaming().await?;
        assert_eq!(published(&mut outbox).await?, tables, "{mode}");
        let all = outbox.value("select puballtables from pg_publication").await?;
        assert_eq!(all.as_deref(), Some(for_all), "{mode}");
        task.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_publication_that_cannot_be_used_stops_the_task_and_says_why() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("publication.autocreate.mode", "disabled");
    let (task, _control) = outbox.start(100, true)?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("dbz_publication") && trace.contains("does not exist"), "{trace}");
    assert_eq!(outbox.slots().await?, "");

    let mut outbox = Outbox::new().await?.with_superuser().await?;
    outbox.execute("create publication dbz_publication for all tables").await?;
    let (task, _control) = outbox.start(100, true)?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("FOR ALL TABLES"), "{trace}");

    let outbox = Outbox::new().await?.with("publication.autocreate.mode", "all_tables");
    let (task, _control) = outbox.start(100, true)?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("42501") && trace.contains("superuser"), "{trace}");
    Ok(())
}

#[tokio::test]
async fn several_outbox_tables_are_one_stream_and_a_later_one_joins_at_a_restart() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("table.include.list", "inventory.outbox.*");
    let another = |name: &str| {
        format!("create table inventory.{name} (like inventory.outboxevent including all)")
    };
    outbox.execute(&another("outbox_second")).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep(TABLE, &["1"]).await?;
    outbox.keep("inventory.outbox_second", &["2"]).await?;
    outbox.keep(TABLE, &["3"]).await?;
    assert_eq!(keys(&records(&control, 3).await?), ["1", "2", "3"]);
    task.stop().await;

    outbox.execute(&another("outbox_third")).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep("inventory.outbox_third", &["4"]).await?;
    assert_eq!(keys(&records(&control, 1).await?), ["4"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_partitioned_outbox_is_published_through_its_root() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("publish.via.partition.root", "true");
    outbox.execute(PARTITIONED).await?;
    outbox.keep(TABLE, &["1", "2"]).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep(TABLE, &["1", "3"]).await?;
    let mut read = keys(&records(&control, 4).await?);
    read[..2].sort();
    assert_eq!(read, ["1", "2", "1", "3"]);
    task.stop().await;
    // Restarting finds the publication as it left it.
    let (task, control) = outbox.start(100, true)?;
    outbox.keep(TABLE, &["4"]).await?;
    assert_eq!(keys(&records(&control, 1).await?), ["4"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_partitioned_outbox_is_published_through_its_partitions() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("table.include.list", "inventory.outboxevent.*");
    outbox.execute(PARTITIONED).await?;
    outbox.keep(TABLE, &["1", "2"]).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep(TABLE, &["1", "3"]).await?;
    // Each row once, although root and partitions are in the list.
    let expected = ["1", "2", "1", "3"];
    assert_eq!(keys(&records(&control, 4).await?), expected);
    task.stop().await;
    // A table that comes later joins, although the publication names the partitions and not the root.
    outbox
        .execute(
            "create table inventory.outboxevent_plain (like inventory.outboxevent including all)",
        )
        .await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep("inventory.outboxevent_plain", &["5"]).await?;
    assert_eq!(keys(&records(&control, 1).await?), ["5"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_single_partition_may_be_the_outbox() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("table.include.list", "inventory.outboxevent_1");
    outbox.execute(PARTITIONED).await?;
    outbox.keep(TABLE, &["1", "2"]).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep(TABLE, &["3", "1"]).await?;
    assert_eq!(keys(&records(&control, 2).await?), ["1", "1"]);
    assert_eq!(published(&mut outbox).await?, "dbz_publication:outboxevent_1");
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn rows_are_published_whatever_the_replica_identity() -> Result<()> {
    for (identity, deletes) in [
        ("default", true),
        ("full", true),
        ("using index outboxevent_pkey", true),
        // PostgreSQL itself refuses the delete.
        ("nothing", false),
    ] {
        let mut outbox = Outbox::new().await?;
        outbox.execute(&format!("alter table {TABLE} replica identity {identity}")).await?;
        let (task, control) = outbox.start(100, true)?;
        outbox.streaming().await?;
        outbox.keep(TABLE, &["1"]).await?;
        if deletes {
            outbox.emit("2").await?;
        }
        outbox.keep(TABLE, &["3"]).await?;
        let expected: &[&str] = if deletes { &["1", "2", "3"] } else { &["1", "3"] };
        assert_eq!(keys(&records(&control, expected.len()).await?), expected, "{identity}");
        task.stop().await;
    }
    Ok(())
}
