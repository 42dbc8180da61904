//! Tests of what is taken as an order or a status, and of what is said about the rest.

use serde_json::{Value as Json, json};

use super::*;

const LINE: &str = r#"{"item":"A","quantity":1,"totalPrice":10}"#;

fn order_with(date: &str) -> String {
    format!(r#"{{"customerId":1,"orderDate":{date},"lineItems":[{LINE}]}}"#)
}

fn line_with(field: &str, value: &str) -> String {
    let mut line: Vec<(&str, &str)> =
        vec![("item", "\"A\""), ("quantity", "1"), ("totalPrice", "10")];
    line.retain(|(name, _)| *name != field);
    line.push((field, value));
    let fields: Vec<String> =
        line.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!(
        r#"{{"customerId":1,"orderDate":"2019-01-31T12:13:01","lineItems":[{{{}}}]}}"#,
        fields.join(",")
    )
}

fn taken(body: &str) -> NewOrder {
    read_new_order(body.as_bytes()).unwrap_or_else(|problem| panic!("{body}: {problem:?}"))
}

/// Checks that the body is refused with exactly one mistake, at this place, whose text has this in it.
fn check_refused(body: &[u8], pointer: &str, words: &str) {
    let problem = read_new_order(body).expect_err(&String::from_utf8_lossy(body));
    let problem: Json = serde_json::to_value(&problem).unwrap();
    assert_eq!(problem["status"], 400);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{problem}");
    assert_eq!(errors[0]["pointer"], pointer, "{problem}");
    assert!(errors[0]["detail"].as_str().unwrap().contains(words), "{problem}");
}

#[test]
fn the_request_of_the_readme_is_an_order() {
    let body = include_bytes!("../../../resources/data/create-order-request.json");
    assert_eq!(read_new_order(body).unwrap(), crate::order::tests::seed_order());
    let body = include_bytes!("../../../resources/data/cancel-order-line-request.json");
    assert_eq!(read_new_status(body).unwrap(), LineStatus::Cancelled);
}

#[test]
fn numbers_may_come_as_strings() {
    for customer in ["123", "\"123\"", "\" 123 \""] {
        let body = order_with("\"2019-01-31T12:13:01\"").replace(":1,", &format!(":{customer},"));
        assert_eq!(taken(&body).customer_id(), 123);
    }
    assert_eq!(taken(&line_with("quantity", "\"2\"")).lines()[0].quantity, 2);
    let order = taken(&line_with("totalPrice", "\"39.98\""));
    assert_eq!(order.lines()[0].total_price.to_string(), "39.98");
    assert_eq!(taken(&line_with("item", "7")).lines()[0].item, "7");
}

#[test]
fn a_price_keeps_the_digits_of_the_document() {
    for price in ["10", "10.0", "10.00", "0.00", "12345678901234567.89", "0.1"] {
        let order = taken(&line_with("totalPrice", price));
        assert_eq!(order.lines()[0].total_price.to_string(), price);
    }
}

#[test]
fn dates_come_in_the_forms_that_the_original_takes() {
    for (sent, understood) in [
        ("\"2019-01-31T12:13:01\"", "2019-01-31T12:13:01"),
        ("\"2019-01-31T12:13:01Z\"", "2019-01-31T12:13:01"),
        ("\"2019-01-31T12:13\"", "2019-01-31T12:13:00"),
        ("\"2019-01-31T12:13:01.120\"", "2019-01-31T12:13:01.120"),
        ("\"2019-01-31T12:13:01.123456789\"", "2019-01-31T12:13:01.123456"),
        ("[2019,1,31,12,13,1]", "2019-01-31T12:13:01"),
        ("[2019,1,31,12,13]", "2019-01-31T12:13:00"),
        ("\"1000-01-01T00:00:00\"", "1000-01-01T00:00:00"),
        ("[2019,1,31,12,13,1,120000000]", "2019-01-31T12:13:01.120"),
    ] {
        let date = taken(&order_with(sent)).order_date();
        assert_eq!(serde_json::to_value(date).unwrap(), json!(understood), "{sent}");
    }
}

#[test]
fn what_is_no_local_date_and_time_is_refused() {
    for date in [
        "\"\"",
        "\"2019-01-31\"",
        "\"2019-02-31T12:13:01\"",
        "\"2019-01-31T12:13:01+02:00\"",
        "\"2019-01-31 12:13:01\"",
        "\"2019-01-31T24:00:00\"",
        "\"2019-01-31T12:13:60\"",
        "\"2019-1-31T12:13:01\"",
        "\"2019-01-31T1:13:01\"",
        "\"2019-01-31T12:13:01.\"",
        "\"2019-01-31T12:13.5\"",
        "\"2019-01-31T 1:13:01\"",
        "\"2019-01-31T12: 3:01\"",
        "\"2019-01-31T12:3\"",
        "\"2019-01-31T12:13:1\"",
        "\"2019-01-31T12:13: 1\"",
        "\"2019-01-31T12:13:+1\"",
        "\"2019-01-31T12:13:01:00\"",
        "\"2019-01-31T12:13:01.5 \"",
        "\"0000-01-01T00:00:00\"",
        "\"0999-12-31T23:59:59\"",
        "\"+12019-01-31T12:13:01\"",
        "\"2019-01-31T12:13:01.1234567890123456789\"",
        "\"\u{e4}\u{e4}-T\u{e4}\"",
        "1548936781",
        "[2019,1,31]",
        "[2019,13,31,12,13]",
        "[999,12,31,12,13]",
        "[10000,1,1,12,13]",
        "[2019,1,31,12,13,60]",
        "[-2019,1,31,12,13]",
        "{}",
    ] {
        check_refused(order_with(date).as_bytes(), "#/orderDate", "2019-01-31T12:13:01");
    }
}

#[test]
fn a_bad_value_is_refused_by_its_place() {
    let long = format!("\"{}\"", "x".repeat(256));
    for (field, value, words) in [
        ("quantity", "0", "from 1 to"),
        ("quantity", "-1", "from 1 to"),
        ("quantity", "1.7", "whole number"),
        ("quantity", "1000001", "from 1 to"),
        ("quantity", "3000000000", "from 1 to"),
        ("quantity", "\"two\"", "whole number"),
        ("quantity", "null", "missing"),
        ("item", "null", "missing"),
        ("item", "\" \"", "blank"),
        ("item", "true", "text"),
        ("item", "\"a\\u0000b\"", "U+0000"),
        ("item", "\"\\ud800\"", "text"),
        ("item", &long, "255"),
        ("totalPrice", "null", "missing"),
        ("totalPrice", "-5", "negative"),
        ("totalPrice", "10.005", "2 decimals"),
        // 39.98 as a program prints a double digit by digit.
        ("totalPrice", "39.97999999999999687361196265555918216705322265625", "2 decimals"),
        ("totalPrice", "1e40", "digits"),
        ("totalPrice", "\"ten\"", "decimal number"),
        ("totalPrice", "[]", "decimal number"),
        ("colour", "1", "not a field"),
    ] {
        check_refused(line_with(field, value).as_bytes(), &format!("#/lineItems/0/{field}"), words);
    }
    assert_eq!(taken(&line_with("item", &long.replacen('x', "", 1))).lines().len(), 1);
}

#[test]
fn a_bad_order_is_refused_by_its_place() {
    let date = r#""orderDate":"2019-01-31T12:13:01""#;
    let most = r#"{"item":"A","quantity":1,"totalPrice":99999999999999999999999999.99}"#;
    let many = vec![LINE; LINE_ITEMS_MAX + 1].join(",");
    for (body, pointer, words) in [
        (format!(r#"{{{date},"lineItems":[{LINE}]}}"#), "#/customerId", "missing"),
        (format!(r#"{{"customerId":0,{date},"lineItems":[{LINE}]}}"#), "#/customerId", "from 1"),
        (
            format!(r#"{{"customerId":9223372036854775808,{date},"lineItems":[{LINE}]}}"#),
            "#/customerId",
            "to 9223372036854775807",
        ),
        (format!(r#"{{"customerId":"abc",{date},"lineItems":[{LINE}]}}"#), "#/customerId", "whole"),
        (format!(r#"{{"customerId":1,"lineItems":[{LINE}]}}"#), "#/orderDate", "missing"),
        (format!(r#"{{"customerId":1,{date}}}"#), "#/lineItems", "missing"),
        (format!(r#"{{"customerId":1,{date},"lineItems":[]}}"#), "#/lineItems", "at least one"),
        (format!(r#"{{"customerId":1,{date},"lineItems":{{}}}}"#), "#/lineItems", "array"),
        (format!(r#"{{"customerId":1,{date},"lineItems":[null]}}"#), "#/lineItems/0", "object"),
        (
            format!(r#"{{"customerId":1,{date},"lineItems":[{many}]}}"#),
            "#/lineItems",
            "at most 500",
        ),
        (format!(r#"{{"customerId":1,{date},"lineItems":[{most},{most}]}}"#), "#/lineItems", "sum"),
        (format!(r#"{{"customerId":1,{date},"lineItems":[{LINE}],"foo":1}}"#), "#/foo", "foo"),
        ("hello".to_owned(), "#", "not JSON"),
        (r#"{"customerId":1"#.to_owned(), "#", "not JSON"),
        (format!("{} xyz", order_with("\"2019-01-31T12:13:01\"")), "#", "not JSON"),
        (" ".to_owned(), "#", "empty"),
        ("null".to_owned(), "#", "object"),
        ("[]".to_owned(), "#", "object"),
    ] {
        check_refused(body.as_bytes(), pointer, words);
    }
    check_refused(b"{\"customerId\":\"\xff\"}", "#", "not JSON");
}

#[test]
fn every_mistake_is_told_at_once() {
    let body = br#"{"customerId":"x","lineItems":[{"quantity":0},{"item":"A","quantity":1,"totalPrice":-1}]}"#;
    let problem = serde_json::to_value(read_new_order(body).unwrap_err()).unwrap();
    let errors = problem["errors"].as_array().unwrap();
    let pointers: Vec<&str> =
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    let expected = [
        "#/customerId",
        "#/orderDate",
        "#/lineItems/0/item",
        "#/lineItems/0/quantity",
        "#/lineItems/0/totalPrice",
        "#/lineItems/1/totalPrice",
    ];
    assert_eq!(pointers, expected);
}

#[test]
fn id_and_status_of_a_sent_line_are_ignored() {
    let body = line_with("id", "99").replace("\"A\"", "\"A\",\"status\":\"SHIPPED\"");
    assert_eq!(taken(&body).lines().len(), 1);
}

#[test]
fn a_status_is_one_of_three_names() {
    for body in [
        r#"{"newStatus":"FOO"}"#,
        r#"{"newStatus":"cancelled"}"#,
        r#"{"newStatus":1}"#,
        r#"{"newStatus":null}"#,
        "{}",
    ] {
        let problem = serde_json::to_value(read_new_status(body.as_bytes()).unwrap_err()).unwrap();
        assert_eq!(problem["errors"][0]["pointer"], "#/newStatus", "{body}");
    }
    assert_eq!(read_new_status(br#"{"newStatus":"SHIPPED"}"#).unwrap(), LineStatus::Shipped);
}

#[test]
fn deep_nesting_is_refused_without_a_deep_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    check_refused(order_with(&deep).as_bytes(), "#/orderDate", "local date");
}
