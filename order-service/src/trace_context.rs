//! The caller's W3C trace context, checked and put into the form of the outbox column. Pure.
//!
//! Format: <https://www.w3.org/TR/trace-context/>. The column holds java.util.Properties text, because that is what
//! Debezium's tracing and the original service write and read.

/// Characters of the column `tracingspancontext`.
const PROPERTIES_CHARS_MAX: usize = 256;

/// Length of a `traceparent` of version 00: `vv-<32 hex>-<16 hex>-ff`.
const TRACEPARENT_BYTES: usize = 55;

/// The trace that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the headers. A `traceparent` that breaks the format is no trace at all (the specification's rule), and so
    /// is one that was sent twice; a `tracestate` that breaks it is left out.
    pub(crate) fn from_headers<'a>(
        traceparent: impl IntoIterator<Item = &'a str>,
        tracestate: impl IntoIterator<Item = &'a str>,
    ) -> Option<TraceContext> {
        let mut parents = traceparent.into_iter();
        let parent = parents.next()?;
        if parents.next().is_some() || !is_traceparent(parent) {
            return None;
        }
        let states: Vec<&str> =
            tracestate.into_iter().map(str::trim).filter(|state| !state.is_empty()).collect();
        let tracestate = Some(states.join(",")).filter(|state| is_tracestate(state));
        Some(TraceContext { traceparent: parent.to_owned(), tracestate })
    }

    /// The trace id: 32 hexadecimal digits, for logs.
    pub(crate) fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    /// The context as java.util.Properties text: one `key=value` per line. A `tracestate` that does not fit the column
    /// is left out, which the specification allows; a cut one would be wrong.
    pub(crate) fn to_properties(&self) -> String {
        let parent = format!("traceparent={}\n", escape(&self.traceparent));
        let Some(state) = &self.tracestate else { return parent };
        let both = format!("{parent}tracestate={}\n", escape(state));
        if both.len() > PROPERTIES_CHARS_MAX { parent } else { both }
    }
}

fn is_traceparent(text: &str) -> bool {
    // A later version may have more behind what version 00 has, after a dash.
    let (known, more) = match text.split_at_checked(TRACEPARENT_BYTES) {
        Some(parts) => parts,
        None => return false,
    };
    let parts: Vec<&str> = known.split('-').collect();
    let [version, trace_id, parent_id, flags] = parts.as_slice() else { return false };
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |part: &str| part.bytes().any(|byte| byte != b'0');
    hex(version, 2)
        && *version != "ff"
        && hex(trace_id, 32)
        && not_zero(trace_id)
        && hex(parent_id, 16)
        && not_zero(parent_id)
        && hex(flags, 2)
        // The column takes the rest only where it fits; nobody needs it to follow a trace.
        && (more.is_empty() || (*version != "00" && more.starts_with('-') && text.len() <= 128 && text.is_ascii()))
}

/// Printable ASCII in `key=value` members. What a vendor puts into its value is its own business.
fn is_tracestate(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && text.split(',').map(str::trim).filter(|member| !member.is_empty()).all(|member| {
            member.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
        })
}

/// Escapes as `java.util.Properties.store` does for printable ASCII.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        if matches!(character, '=' | ':' | '#' | '!' | '\\') || (index == 0 && character == ' ') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn check(parent: &[&str], state: &[&str], expected: Option<&str>) {
        let context = TraceContext::from_headers(parent.iter().copied(), state.iter().copied());
        let properties = context.map(|context| context.to_properties());
        assert_eq!(properties.as_deref(), expected, "{parent:?} {state:?}");
    }

    #[test]
    fn a_trace_becomes_properties_text() {
        let only_parent = format!("traceparent={PARENT}\n");
        check(&[PARENT], &[], Some(&only_parent));
        check(&[PARENT], &[""], Some(&only_parent));
        check(
            &[PARENT],
            &["congo=t61rcWkgMzE", "rojo=a:b"],
            Some(&format!("traceparent={PARENT}\ntracestate=congo\\=t61rcWkgMzE,rojo\\=a\\:b\n")),
        );
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = format!("cc{}-what-the-future-brings", &PARENT[2..]);
        check(&[&later], &[], Some(&format!("traceparent={later}\n")));
    }

    #[test]
    fn what_breaks_the_format_is_no_trace() {
        check(&[], &["a=b"], None);
        check(&[PARENT, PARENT], &[], None);
        for broken in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7 01",
            &format!("cc{}\u{e9}", &PARENT[2..]),
            &format!("cc{}-{}", &PARENT[2..], "x".repeat(300)),
            &"\u{1f980}".repeat(20),
        ] {
            check(&[broken], &[], None);
        }
    }

    #[test]
    fn a_state_that_is_broken_or_does_not_fit_is_left_out() {
        let only_parent = format!("traceparent={PARENT}\n");
        for state in ["no-equals-sign", "a=\u{7f}", "=b", "a=", &format!("a={}", "x".repeat(300))] {
            check(&[PARENT], &[state], Some(&only_parent));
        }
    }

    #[test]
    fn the_trace_id_is_the_second_part() {
        let context = TraceContext::from_headers([PARENT], []).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
