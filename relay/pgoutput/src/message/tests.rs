//! One hand-made message of each kind, each cut at every byte, and arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::TupleColumn;

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

/// A row of: the text `1`, null, an unchanged TOAST value.
fn row() -> Vec<u8> {
    [&3u16.to_be_bytes()[..], b"t", &1i32.to_be_bytes(), b"1", b"n", b"u"].concat()
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let relation_id = 42u32.to_be_bytes();
    let relation = [
        &b"R"[..],
        &relation_id,
        &text("inventory"),
        &text("outboxevent"),
        b"d",
        &1u16.to_be_bytes(),
        &[1],
        &text("id"),
        &2950u32.to_be_bytes(),
        &(-1i32).to_be_bytes(),
    ];
    let begin = [&b"B"[..], &7u64.to_be_bytes(), &5i64.to_be_bytes(), &3u32.to_be_bytes()];
    let commit = [&b"C"[..], &[0], &7u64.to_be_bytes(), &9u64.to_be_bytes(), &5i64.to_be_bytes()];
    let message =
        [&b"M"[..], &[1], &7u64.to_be_bytes(), &text("outbox"), &2i32.to_be_bytes(), &[0xFF, 0x00]];
    vec![
        ("begin", begin.concat()),
        ("commit", commit.concat()),
        ("origin", [&b"O"[..], &7u64.to_be_bytes(), &text("elsewhere")].concat()),
        ("relation", relation.concat()),
        ("type", [&b"Y"[..], &relation_id, &text("public"), &text("mood")].concat()),
        ("insert", [&b"I"[..], &relation_id, b"N", &row()].concat()),
        ("update", [&b"U"[..], &relation_id, b"N", &row()].concat()),
        ("update with key", [&b"U"[..], &relation_id, b"K", &row(), b"N", &row()].concat()),
        ("update of full", [&b"U"[..], &relation_id, b"O", &row(), b"N", &row()].concat()),
        ("delete", [&b"D"[..], &relation_id, b"K", &row()].concat()),
        ("truncate", [&b"T"[..], &1i32.to_be_bytes(), &[3], &relation_id].concat()),
        ("logical message", message.concat()),
    ]
}

#[test]
fn each_kind_of_message_is_decoded() {
    let decoded: Vec<_> = examples();
    let decoded: Vec<_> = decoded.iter().map(|(name, bytes)| (*name, decode(bytes))).collect();
    for (name, message) in &decoded {
        assert!(message.is_ok(), "{name}: {message:?}");
    }
    let Ok(Message::Relation(relation)) = &decoded[3].1 else { panic!("no relation") };
    assert_eq!((relation.id, relation.namespace, relation.name), (42, "inventory", "outboxevent"));
    let id = Column { key: true, name: "id", type_id: 2950, type_modifier: -1 };
    assert_eq!(relation.columns, [id]);
    let Ok(Message::Insert(insert)) = &decoded[5].1 else { panic!("no insert") };
    let columns: Vec<_> = insert.new.columns().collect();
    assert_eq!(columns, [TupleColumn::Text(b"1"), TupleColumn::Null, TupleColumn::UnchangedToast]);
    let Ok(Message::Commit(commit)) = &decoded[1].1 else { panic!("no commit") };
    assert_eq!((commit.commit_lsn, commit.end_lsn), (Lsn::new(7), Lsn::new(9)));
    let Ok(Message::Truncate(truncate)) = &decoded[10].1 else { panic!("no truncate") };
    assert!(truncate.cascade && truncate.restart_identity);
    let Ok(Message::LogicalMessage(message)) = &decoded[11].1 else { panic!("no message") };
    assert_eq!((message.prefix, message.content), ("outbox", &[0xFF, 0x00][..]));
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    for (name, bytes) in examples() {
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    for (name, bytes) in examples() {
        let longer = [&bytes[..], &[0]].concat();
        let error = decode(&longer);
        assert!(matches!(error, Err(DecodeError::TrailingBytes { left: 1, .. })), "{name}");
    }
}

#[test]
fn a_negative_or_huge_length_is_refused_without_allocating() {
    let negative = [&b"I"[..], &[0, 0, 0, 1], b"N", &[0, 1], b"t", &(-1i32).to_be_bytes()];
    assert!(matches!(decode(&negative.concat()), Err(DecodeError::NegativeLength { .. })));
    let huge = [&b"T"[..], &i32::MAX.to_be_bytes(), &[0]];
    assert!(matches!(decode(&huge.concat()), Err(DecodeError::Truncated { .. })));
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    let bytes = [&b"Y"[..], &[0, 0, 0, 1], &[0xFF, 0], &text("mood")].concat();
    assert!(matches!(decode(&bytes), Err(DecodeError::NotUtf8 { .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = crate::frame::decode(&bytes);
    }

    #[test]
    fn a_real_message_with_changed_bytes_never_panics(
        example in 0usize..12,
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let (_, mut bytes) = examples().swap_remove(example);
        let index = position.index(bytes.len());
        bytes[index] = byte;
        if let Ok(Message::Insert(insert)) = decode(&bytes) {
            prop_assert_eq!(insert.new.columns().count(), insert.new.len());
        }
    }
}
