//! `tracestate`: a list of vendors' entries, passed on if it is well formed as a whole.

/// Most entries of a list.
const ENTRIES_MAX: usize = 32;

/// Longest key and longest value.
const TEXT_MAX: usize = 256;

/// Longest name of a tenant, and of the vendor behind its `@`.
const TENANT_MAX: usize = 241;
const VENDOR_MAX: usize = 13;

/// The list as it is passed on, without blanks between its entries; none where there is nothing to pass on.
pub(super) fn valid_state(text: &str) -> Option<String> {
    let is_blank = |char: char| matches!(char, ' ' | '\t');
    let entries: Vec<&str> = text.split(',').collect();
    let last = entries.len() - 1;
    // Blanks count as part of the list where no comma is beside them.
    let trim = |(index, entry): (usize, &&'_ str)| -> String {
        let entry = if index > 0 { entry.trim_start_matches(is_blank) } else { entry };
        let entry = if index < last { entry.trim_end_matches(is_blank) } else { entry };
        entry.to_owned()
    };
    let mut entries: Vec<String> = entries.iter().enumerate().map(trim).collect();
    // Java's split leaves empty strings at the end out.
    while entries.last().is_some_and(String::is_empty) {
        entries.pop();
    }
    let mut keys = Vec::with_capacity(entries.len());
    for entry in &entries {
        let (key, value) = entry.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    (!entries.is_empty() && entries.len() <= ENTRIES_MAX).then(|| entries.join(","))
}

fn is_key(key: &str) -> bool {
    let legal =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins =
        key.bytes().next().is_some_and(|first| legal(first) && first.is_ascii_alphanumeric());
    if !begins || key.len() > TEXT_MAX || !key.bytes().all(legal) {
        return false;
    }
    match key.split_once('@') {
        Some((tenant, vendor)) => {
            tenant.len() <= TENANT_MAX
                && (1..=VENDOR_MAX).contains(&vendor.len())
                && !vendor.contains('@')
        }
        None => !key.starts_with(|first: char| first.is_ascii_digit()),
    }
}

fn is_value(value: &str) -> bool {
    let legal = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=TEXT_MAX).contains(&value.len()) && value.bytes().all(legal) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_passed_on_whole_or_not_at_all() {
        assert_eq!(valid_state("a=1").as_deref(), Some("a=1"));
        assert_eq!(valid_state("a=1 ,\tb@c=x y").as_deref(), Some("a=1,b@c=x y"));
        for malformed in [
            "", "a", "A=1", "1a=1", "a=", "a=1,a=2", "a=1,,b=2", "a=b=c", "a@b@c=1", "a@=1",
            " a=1", "a=1 ",
        ] {
            assert_eq!(valid_state(malformed), None, "{malformed:?}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        assert_eq!(valid_state(&many.join(",")), None);
        assert!(valid_state(&many[1..].join(",")).is_some());
    }
}
