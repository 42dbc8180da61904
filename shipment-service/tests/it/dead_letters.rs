//! Poison goes to the dead letter topic with its reason, and the rest flow on.

use anyhow::Result;
use uuid::Uuid;

use super::fixture::{Record, World, order};

#[tokio::test]
async fn poison_goes_to_the_dead_letter_topic_as_it_came_with_the_reason_and_the_rest_flow_on()
-> Result<()> {
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    let good = |id| Record::order_created(id);
    let mut no_id = good(90);
    no_id.headers.remove(0);
    let mut no_type = good(91);
    no_type.headers.truncate(1);
    let mut bad_id = good(92);
    bad_id.headers[0].1 = "42".to_owned();
    let mut binary = good(93);
    binary.value = Some(vec![0xff, 0x00, 0xfe]);
    let mut tombstone = good(94);
    tombstone.value = None;
    let mut no_key = Record::event(Uuid::new_v4(), "OrderCreated", 0, r#"{"id":95}"#);
    no_key.key = None;
    no_key.headers.push(("trace".to_owned(), "kept".to_owned()));
    let poison = [
        ("no-event-id", no_id),
        ("no-event-type", no_type),
        ("bad-event-id", bad_id),
        ("unreadable-value", binary),
        ("no-value", tombstone),
        ("bad-field", no_key),
    ];
    let mut records = vec![good(1)];
    for (number, (_, record)) in (2..).zip(&poison) {
        records.extend([record.clone(), good(number)]);
    }
    world.send_all(&records).await?;
    world.committed_up_to(13).await?;

    assert_eq!(world.order_ids().await?, [1, 2, 3, 4, 5, 6, 7], "the rest, in their order");
    assert_eq!(
        world.consumed_messages().await?,
        7,
        "poison is not recorded: a repaired copy may come"
    );
    let letters = world.dead_letters(6).await?;
    assert_eq!(world.dead_letter_count().await?, 6);
    for (number, (reason, sent)) in poison.iter().enumerate() {
        let offset = (2 * number + 1).to_string();
        let letter = letters
            .iter()
            .find(|letter| letter.header("__dead_letter.offset") == Some(&offset))
            .unwrap_or_else(|| panic!("no dead letter of offset {offset}"));
        assert_eq!(letter.header("__dead_letter.reason"), Some(*reason));
        assert!(
            letter.header("__dead_letter.message").is_some_and(|text| text.len() > 10),
            "{reason}"
        );
        assert_eq!(letter.header("__dead_letter.topic"), Some(world.topic.as_str()));
        assert_eq!(letter.header("__dead_letter.partition"), Some("0"));
        assert_eq!(letter.header("__dead_letter.group"), Some(world.group.as_str()));
        assert!(letter.header("__dead_letter.time").is_some_and(|time| time.ends_with('Z')));
        assert!(
            letter
                .header("__dead_letter.timestamp")
                .is_some_and(|millis| millis.parse::<i64>().is_ok())
        );
        assert_eq!(letter.key, sent.key.as_ref().map(|key| key.as_bytes().to_vec()), "{reason}");
        assert_eq!(letter.value, sent.value, "{reason}");
        for (place, (name, value)) in sent.headers.iter().enumerate() {
            assert_eq!(&letter.headers[place].0, name, "{reason}");
            assert_eq!(letter.headers[place].1.as_deref(), Some(value.as_bytes()), "{reason}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_the_database_refuses_is_poison_and_leaves_nothing_behind() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    sqlx::query("alter table Shipment add constraint small_customers check (customerId < 1000)")
        .execute(&world.pool)
        .await?;
    let refused = order(1).replace("123", "1000");
    world.send(&Record::event(Uuid::new_v4(), "OrderCreated", 1, &refused)).await?;
    world.send(&Record::order_created(2)).await?;
    world.committed_up_to(2).await?;

    assert_eq!(world.order_ids().await?, [2]);
    assert_eq!(
        world.consumed_messages().await?,
        1,
        "the message log was rolled back with the shipment"
    );
    let letters = world.dead_letters(1).await?;
    assert_eq!(letters[0].header("__dead_letter.reason"), Some("refused-by-database"));
    assert!(
        letters[0]
            .header("__dead_letter.message")
            .is_some_and(|text| text.contains("small_customers"))
    );
    Ok(())
}

#[tokio::test]
async fn a_repaired_copy_of_a_dead_letter_with_the_same_event_id_is_taken() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    let id = Uuid::new_v4();
    world.send(&Record::event(id, "OrderCreated", 1, "{broken")).await?;
    world.dead_letters(1).await?;
    world.send(&Record::event(id, "OrderCreated", 1, &order(1))).await?;
    assert_eq!(world.shipments(1).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn poison_as_large_as_the_topic_allows_does_not_stop_the_rest() -> Result<()> {
    // Kafka's default for max.message.bytes is 1,048,588: the record fits, and with our headers it does not.
    const VALUE_BYTES: usize = 1_048_350;
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    let mut large = Record::order_created(1);
    large.value = Some(vec![b'x'; VALUE_BYTES]);
    world.send_large(&large).await?;
    world.send(&Record::order_created(2)).await?;
    assert_eq!(world.shipments(1).await?, [2]);
    let letters = world.dead_letters(1).await?;
    assert_eq!(letters[0].value, None);
    let size = VALUE_BYTES.to_string();
    assert_eq!(letters[0].header("__dead_letter.omitted_value_bytes"), Some(size.as_str()));
    assert_eq!(letters[0].header("__dead_letter.offset"), Some("0"));
    Ok(())
}

#[tokio::test]
async fn poison_whose_headers_fill_the_topics_limit_does_not_stop_the_rest() -> Result<()> {
    const HEADER_BYTES: usize = 1_048_300;
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    let mut large = Record::order_created(1);
    large.headers = vec![("x".to_owned(), "y".repeat(HEADER_BYTES))];
    world.send_large(&large).await?;
    world.send(&Record::order_created(2)).await?;
    assert_eq!(world.shipments(1).await?, [2]);
    let letters = world.dead_letters(1).await?;
    assert_eq!((&letters[0].key, &letters[0].value), (&None, &None));
    assert_eq!(letters[0].header("__dead_letter.reason"), Some("no-event-id"));
    assert_eq!(letters[0].header("__dead_letter.offset"), Some("0"));
    // The header with its name, and the key `1`.
    let omitted = (HEADER_BYTES + 2).to_string();
    let header = "__dead_letter.omitted_key_and_headers_bytes";
    assert_eq!(letters[0].header(header), Some(omitted.as_str()));
    Ok(())
}
