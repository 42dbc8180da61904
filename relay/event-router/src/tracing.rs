//! Tracing headers, as Debezium's router writes them where OpenTelemetry's SDK is on its class path: a span of its own
//! under the one that the row names, propagated by the W3C's `traceparent` and `tracestate`.
//!
//! Source of the rules: W3C Trace Context, OpenTelemetry's propagator for it, and the conformance vectors.

mod state;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::data::{DataError, Schema, Type, Value};
use crate::event::Header;
use crate::java_properties::Properties;

use state::valid_state;

/// Gives random bits for the ids of spans; the router itself knows no source of them.
pub type RandomBits = fn() -> u128;

const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// Length of a `traceparent`; those of later versions may be longer.
const TRACE_PARENT_LENGTH: usize = 55;

/// A span of ours is recorded, and its trace id is random.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

static STRING: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::new(Type::String)));

/// What a row says of the span that wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Parent<'t> {
    trace_id: &'t str,
    flags: u8,
}

/// Puts the context of a new span into headers. `context` is the row's column, in the form of Java's properties.
///
/// # Errors
/// When the column holds no properties.
pub(crate) fn trace(
    context: Option<&str>,
    random: RandomBits,
    headers: &mut Vec<Header<'_>>,
) -> Result<(), DataError> {
    let properties = context.map(Properties::load).transpose()?.unwrap_or_default();
    let parent = properties.get(TRACE_PARENT).and_then(parse_parent);
    let span_id = span_id(random);
    let trace_parent = match &parent {
        // As the parent's sampler has decided.
        Some(Parent { trace_id, flags }) => {
            format!("00-{trace_id}-{span_id:016x}-{:02x}", flags & (SAMPLED | RANDOM))
        }
        None => format!("00-{:032x}-{span_id:016x}-{:02x}", trace_id(random), SAMPLED | RANDOM),
    };
    set(headers, TRACE_PARENT, trace_parent);
    let state = properties.get(TRACE_STATE).filter(|_| parent.is_some());
    if let Some(state) = state.and_then(valid_state) {
        set(headers, TRACE_STATE, state);
    }
    Ok(())
}

fn set(headers: &mut Vec<Header<'_>>, name: &'static str, value: String) {
    headers.retain(|header| header.name != name);
    headers.push(Header {
        name: Cow::Borrowed(name),
        schema: Some(Arc::clone(&STRING)),
        value: Value::String(Cow::Owned(value)),
    });
}

/// Zero stands for no id.
fn trace_id(random: RandomBits) -> u128 {
    random().max(1)
}

fn span_id(random: RandomBits) -> u64 {
    let bits = random();
    let folded = (bits >> 64) ^ (bits & u128::from(u64::MAX));
    u64::try_from(folded).unwrap_or(u64::MAX).max(1)
}

fn parse_parent(text: &str) -> Option<Parent<'_>> {
    let bytes = text.as_bytes();
    let has_length = bytes.len() == TRACE_PARENT_LENGTH
        || (bytes.len() > TRACE_PARENT_LENGTH && bytes[TRACE_PARENT_LENGTH] == b'-');
    let version = text.get(..2)?;
    if !has_length
        || [2, 35, 52].into_iter().any(|index| bytes[index] != b'-')
        || !is_hex(version)
        || version == "ff"
        || (version == "00" && bytes.len() > TRACE_PARENT_LENGTH)
    {
        return None;
    }
    let is_id = |id: &&str| is_hex(id) && id.bytes().any(|digit| digit != b'0');
    let trace_id = text.get(3..35).filter(is_id)?;
    text.get(36..52).filter(is_id)?;
    let flags = text.get(53..55).filter(|flags| is_hex(flags))?;
    Some(Parent { trace_id, flags: u8::from_str_radix(flags, 16).ok()? })
}

/// Upper case is not allowed.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(context: Option<&str>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        trace(context, || 0x1234, &mut headers).unwrap();
        headers
            .into_iter()
            .map(|header| (header.name.into_owned(), header.value.to_java_text()))
            .collect()
    }

    #[test]
    fn a_span_of_ours_stands_under_that_of_the_row() {
        let context = format!("traceparent={PARENT}\ntracestate=congo=t61rcWkgMzE\n");
        let parent = "00-0af7651916cd43dd8448eb211c80319c-0000000000001234-01".to_owned();
        let state = "congo=t61rcWkgMzE".to_owned();
        let expected = [("traceparent".to_owned(), parent), ("tracestate".to_owned(), state)];
        assert_eq!(traced(Some(&context)), expected);
    }

    #[test]
    fn a_trace_begins_where_the_row_names_none() {
        let new = "00-00000000000000000000000000001234-0000000000001234-03";
        for context in [None, Some(""), Some("garbage"), Some("traceparent=00-zz-1-01")] {
            assert_eq!(traced(context), [("traceparent".to_owned(), new.to_owned())]);
        }
        // A state without a parent says nothing.
        assert_eq!(traced(Some("tracestate=a=b")).len(), 1);
    }

    #[test]
    fn a_parent_is_told_from_what_only_looks_like_one() {
        let is_parent = |text: &str| parse_parent(text).is_some();
        assert!(is_parent(PARENT));
        assert!(is_parent(&format!("cc{}-more", &PARENT[2..])));
        for other in [
            format!("{PARENT}-more"),
            format!("ff{}", &PARENT[2..]),
            PARENT.to_uppercase(),
            PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT.replace('-', "_"),
            format!("{}é1", &PARENT[..52]),
        ] {
            assert!(!is_parent(&other), "{other}");
        }
    }

    #[test]
    fn a_span_that_is_not_sampled_has_children_that_are_not() {
        let context = format!("traceparent={}", PARENT.replace("-01", "-00"));
        assert!(traced(Some(&context))[0].1.ends_with("-00"));
    }
}
