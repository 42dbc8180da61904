//! The Kafka sink on a real broker, where a broker's word decides.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use relay::record::Record;
use relay::sink::kafka::KafkaSink;
use relay::sink::{Confirmation, Sink, SinkError};
use testbed::{servers, topic, unique_name};

/// Within this time each fact must have become true.
const DEADLINE: Duration = Duration::from_secs(60);

/// Above the `max.message.bytes` that a topic has when nothing is set, and above what may be in flight at once.
const TOO_LARGE: usize = 8 << 20;

fn record(topic: &str, value: Vec<u8>) -> Record {
    Record {
        topic: topic.to_owned(),
        key: Some(b"1".to_vec()),
        value: Some(value),
        ..Record::default()
    }
}

async fn outcomes(sink: &mut KafkaSink, count: usize) -> Result<Vec<Confirmation>> {
    let mut confirmations = Vec::new();
    sink.take_confirmations(&mut confirmations);
    while confirmations.len() < count {
        tokio::time::timeout(DEADLINE, sink.confirmed()).await?;
        sink.take_confirmations(&mut confirmations);
    }
    Ok(confirmations)
}

#[tokio::test]
async fn records_are_confirmed_when_they_are_stored() -> Result<()> {
    let bootstrap_servers = servers().await?.bootstrap_servers();
    let name = unique_name("stored");
    let mut sink = KafkaSink::start(bootstrap_servers, &BTreeMap::new())?;
    for sequence in 0..100 {
        sink.publish(sequence, record(&name, sequence.to_string().into_bytes()));
    }
    let confirmed = outcomes(&mut sink, 100).await?;
    assert!(confirmed.iter().all(|confirmation| confirmation.outcome.is_ok()));
    let stored = topic::read(bootstrap_servers, &name).await?;
    let values: Vec<String> = stored.iter().map(topic::Record::value_text).collect();
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(values, expected);
    Ok(())
}

#[tokio::test]
async fn records_that_come_under_load_keep_their_order_from_convoy_to_convoy() -> Result<()> {
    const RECORDS: u64 = 5_000;
    let bootstrap_servers = servers().await?.bootstrap_servers();
    let name = unique_name("convoys");
    topic::create(bootstrap_servers, &name, 1).await?;
    let mut sink = KafkaSink::start(bootstrap_servers, &BTreeMap::new())?;
    let mut confirmations = Vec::new();
    for sequence in 0..RECORDS {
        let record = record(&name, sequence.to_string().into_bytes());
        while !sink.has_room(&record) {
            tokio::time::timeout(DEADLINE, sink.confirmed()).await?;
        }
        sink.publish(sequence, record);
        sink.hand_over();
        sink.take_confirmations(&mut confirmations);
    }
    confirmations.extend(outcomes(&mut sink, RECORDS as usize - confirmations.len()).await?);
    assert!(confirmations.iter().all(|confirmation| confirmation.outcome.is_ok()));
    let stored = topic::read(bootstrap_servers, &name).await?;
    let values: Vec<String> = stored.iter().map(topic::Record::value_text).collect();
    assert_eq!(values, (0..RECORDS).map(|number| number.to_string()).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_record_that_the_broker_refuses_is_overtaken_by_none_of_its_key() -> Result<()> {
    let bootstrap_servers = servers().await?.bootstrap_servers();
    let name = unique_name("refused");
    topic::create(bootstrap_servers, &name, 1).await?;
    let mut sink = KafkaSink::start(bootstrap_servers, &BTreeMap::new())?;
    sink.publish(0, record(&name, b"first".to_vec()));
    outcomes(&mut sink, 1).await?;
    // Alone it is taken, whatever its size; what comes behind it must wait for the answer.
    sink.publish(1, record(&name, vec![b'x'; TOO_LARGE]));
    assert!(!sink.has_room(&record(&name, b"behind".to_vec())), "there is room");
    let refused = outcomes(&mut sink, 1).await?;
    let Err(SinkError::Record { topic: named, reason }) = &refused[0].outcome else {
        anyhow::bail!("not refused: {:?}", refused[0])
    };
    assert_eq!((refused[0].sequence, named.as_str()), (1, name.as_str()));
    assert!(reason.contains("max.message.bytes"), "{reason}");
    let stored = topic::read(bootstrap_servers, &name).await?;
    assert_eq!(stored.len(), 1);
    Ok(())
}
