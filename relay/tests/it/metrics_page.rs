//! `docs/metrics.md` says what the code's table of metrics says: it is made of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../src/connect/metric_table.tsv");

#[test]
fn the_page_is_what_the_table_says() {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Written by `cargo options` from relay/src/connect/metric_table.tsv: change that, not this page. -->\n\n\
         `GET /metrics` on the port of the REST API answers in Prometheus's text format. Every metric has the label\n\
         `connector`. Times are in seconds, sizes in bytes.\n\n\
         | Metric | Type | More labels | Told | What it says |\n|---|---|---|---|---|\n",
    );
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = row.split('\t').collect();
        let [name, kind, labels, told, words] = columns.try_into().unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let labels = if labels == "-" { "" } else { labels };
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {told} | {words} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if fs::read_to_string(&path).unwrap_or_default() != page {
        fs::write(&path, &page).unwrap();
        panic!("docs/metrics.md was stale; it has been written anew: look at it and commit it");
    }
}
