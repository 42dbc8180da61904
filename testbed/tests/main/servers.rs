//! The shared servers: databases, topics, programs.

use std::time::Duration;

use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use testbed::{Program, eventually, servers, topic, unique_name};

#[tokio::test]
async fn each_postgres_database_is_empty_and_has_an_owner_who_may_replicate() {
    let servers = servers().await.unwrap();
    let one = servers.postgres_database().await.unwrap();
    let two = servers.postgres_database().await.unwrap();
    assert_ne!(one.name, two.name);
    let mut connection = PgConnection::connect(&one.url()).await.unwrap();
    for sql in [
        "create schema inventory",
        "create table inventory.row (id int primary key)",
        "create publication everything for table inventory.row",
        "select pg_create_logical_replication_slot(current_database(), 'pgoutput')",
        "insert into inventory.row values (1)",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let row = sqlx::query(
        "select current_setting('wal_level') || ' ' || current_setting('server_encoding')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(row.get::<String, _>(0), "logical UTF8");
}

#[tokio::test]
async fn a_mysql_user_has_only_the_own_schema() {
    let servers = servers().await.unwrap();
    let one = servers.mysql_database().await.unwrap();
    let two = servers.mysql_database().await.unwrap();
    let mut connection = MySqlConnection::connect(&one.url()).await.unwrap();
    for sql in [
        "create table shipment (id bigint primary key, at datetime(6), item varchar(255)) engine=InnoDB",
        "insert into shipment values (1, now(6), 'Ünïcödé')",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let stolen = sqlx::AssertSqlSafe(format!("create table `{}`.stolen (id int)", two.name));
    assert!(sqlx::raw_sql(stolen).execute(&mut connection).await.is_err());
}

#[tokio::test]
async fn a_produced_record_is_read_back_with_key_headers_and_value() {
    let brokers = servers().await.unwrap().bootstrap_servers();
    let topic = unique_name("records");
    topic::create(brokers, &topic, 3).await.unwrap();
    let headers: [(&str, &[u8]); 2] = [("id", b"7"), ("eventType", b"OrderCreated")];
    let place = topic::produce(brokers, &topic, Some(b"1"), &headers, Some(b"{}")).await.unwrap();
    topic::produce(brokers, &topic, None, &[], None).await.unwrap();
    let records = topic::read(brokers, &topic).await.unwrap();
    assert_eq!(records.len(), 2);
    let record = records.iter().find(|r| r.key.is_some()).unwrap();
    assert_eq!((record.partition, record.offset), place);
    assert_eq!(record.key_text(), "1");
    assert_eq!(record.header("eventType").as_deref(), Some("OrderCreated"));
    assert_eq!(record.headers[0].0, "id");
    assert_eq!(record.value_text(), "{}");
    let tombstone = records.iter().find(|r| r.key.is_none()).unwrap();
    assert_eq!((tombstone.value.clone(), tombstone.headers.len()), (None, 0));
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_empty_and_is_created_by_the_first_record() {
    let brokers = servers().await.unwrap().bootstrap_servers();
    let topic = unique_name("absent");
    assert!(topic::read(brokers, &topic).await.unwrap().is_empty());
    let waiting = topic::wait_for(brokers, &topic, 1, Duration::from_secs(30));
    let producing = topic::produce(brokers, &topic, Some(b"k"), &[], Some(b"v"));
    let (records, produced) = tokio::join!(waiting, producing);
    produced.unwrap();
    assert_eq!(records.unwrap()[0].value_text(), "v");
}

#[tokio::test]
async fn waiting_for_too_many_records_says_how_many_there_are() {
    let brokers = servers().await.unwrap().bootstrap_servers();
    let topic = unique_name("few");
    topic::produce(brokers, &topic, None, &[], Some(b"v")).await.unwrap();
    let error = topic::wait_for(brokers, &topic, 2, Duration::from_secs(2)).await.unwrap_err();
    assert!(error.to_string().contains("1 records instead of 2"), "{error}");
}

#[tokio::test]
async fn a_program_is_heard_asked_to_end_and_reaped() {
    let script = "trap 'echo draining; exit 7' TERM; echo started; while :; do sleep 0.1; done";
    let program = Program::start("/bin/bash", &["-c", script], &[("LC_ALL", "C")]).unwrap();
    program.line("started", Duration::from_secs(10)).await.unwrap();
    let status = program.terminate().await.unwrap();
    assert_eq!(status.code(), Some(7));
    program.line("draining", Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_program_that_ended_is_named_with_its_last_words() {
    let program = Program::start("/bin/sh", &["-c", "echo no database; exit 3"], &[]).unwrap();
    let error = program.line("ready", Duration::from_secs(10)).await.unwrap_err();
    assert!(error.to_string().contains("no database"), "{error:#}");
    assert_eq!(program.wait(Duration::from_secs(10)).await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_dropped_program_is_gone() {
    let program = Program::start("/bin/sleep", &["1000"], &[]).unwrap();
    let pid = program.pid();
    drop(program);
    eventually("end of the dropped program", Duration::from_secs(10), || async move {
        Ok((!crate::supervision::is_alive(pid)).then_some(()))
    })
    .await
    .unwrap();
}
