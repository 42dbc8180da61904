//! Java's texts of numbers, dates and structs, and the checks of structs.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn check_double(value: f64, expected: &str) {
    assert_eq!(double_to_java(value), expected);
}

#[test]
fn doubles_are_printed_as_java_prints_them() {
    check_double(0.0, "0.0");
    check_double(-0.0, "-0.0");
    check_double(1.0, "1.0");
    check_double(100.0, "100.0");
    check_double(9_999_999.0, "9999999.0");
    check_double(1e7, "1.0E7");
    check_double(12_345_678.9, "1.23456789E7");
    check_double(0.001, "0.001");
    check_double(0.0001, "1.0E-4");
    check_double(4.9e-324, "4.9E-324");
    check_double(1e-320, "1.0E-320");
    check_double(f64::MAX, "1.7976931348623157E308");
    check_double(f64::NEG_INFINITY, "-Infinity");
    assert_eq!(float_to_java(16_777_216.0), "1.6777216E7");
    assert_eq!(float_to_java(1.1), "1.1");
}

#[test]
fn decimals_keep_their_scale_and_print_like_big_decimal() {
    let check = |text: &str, plain: &str, java: &str| {
        let decimal: Decimal = text.parse().expect("a decimal");
        assert_eq!(
            (decimal.to_plain_string().as_str(), decimal.to_string().as_str()),
            (plain, java)
        );
    };
    check("1.50", "1.50", "1.50");
    check("-0.00", "0.00", "0.00");
    check("1e10", "10000000000", "1E+10");
    check("0.0000001", "0.0000001", "1E-7");
    check("-12.5e-9", "-0.0000000125", "-1.25E-8");
    assert!("".parse::<Decimal>().is_err() && "1.2.3".parse::<Decimal>().is_err());
}

#[test]
fn unscaled_bytes_are_the_shortest_twos_complement() {
    let bytes = |text: &str| text.parse::<Decimal>().expect("a decimal").unscaled_bytes();
    assert_eq!(bytes("0"), [0]);
    assert_eq!(bytes("127"), [0x7f]);
    assert_eq!(bytes("128"), [0, 0x80]);
    assert_eq!(bytes("-128"), [0x80]);
    assert_eq!(bytes("-129"), [0xff, 0x7f]);
    assert_eq!(bytes("-1.00"), [0x9c]);
    assert_eq!(bytes("12345678901234567890"), [0, 0xab, 0x54, 0xa9, 0x8c, 0xeb, 0x1f, 0x0a, 0xd2]);
}

proptest! {
    #[test]
    fn unscaled_bytes_of_any_integer_match_the_machine(value in any::<i128>()) {
        let bytes = Decimal::from_unscaled(value, 0).unscaled_bytes();
        let padding = if value < 0 { 0xff } else { 0 };
        let mut wide = vec![padding; 16 - bytes.len()];
        wide.extend(&bytes);
        prop_assert_eq!(wide, value.to_be_bytes().to_vec());
    }

    #[test]
    fn any_double_reads_back_from_its_java_text(value in any::<f64>()) {
        prop_assume!(value.is_finite());
        prop_assert_eq!(double_to_java(value).parse::<f64>().expect("a number").to_bits(), value.to_bits());
    }
}

#[test]
fn rounding_is_half_up_and_stripping_may_go_below_scale_zero() {
    let decimal: Decimal = "1234.56".parse().expect("a decimal");
    assert_eq!(decimal.rescaled(0).to_string(), "1235");
    assert_eq!(decimal.rescaled(4).to_string(), "1234.5600");
    assert_eq!("99.95".parse::<Decimal>().expect("a decimal").rescaled(1).to_string(), "100.0");
    assert_eq!("1200.00".parse::<Decimal>().expect("a decimal").stripped().to_string(), "1.2E+3");
}

#[test]
fn a_struct_takes_only_values_of_its_schema_and_gives_defaults_for_nulls() {
    let mut with_default = Schema::new(Type::Int32).with_optional(true);
    with_default.default = Some(Value::Int32(5));
    let schema = Arc::new(
        Schema::structure(Vec::new())
            .with_field("a", Arc::new(Schema::new(Type::String)))
            .with_field("n", Arc::new(with_default)),
    );
    let mut row = Struct::new(&schema).expect("a struct schema");
    assert_eq!(row.put("b", Value::Null), Err(DataError("b is not a valid field name".into())));
    assert!(row.put("a", Value::Null).is_err() && row.put("a", Value::Int32(1)).is_err());
    row.put("a", Value::text("x")).expect("text fits");
    assert_eq!(row.get(1), &Value::Int32(5));
    assert_eq!(Value::Struct(Box::new(row)).to_java_text(), "Struct{a=x}");
}

#[test]
fn dates_are_printed_as_java_util_date_in_utc() {
    assert_eq!(Value::Date(1_582_982_055_123).to_java_text(), "Sat Feb 29 13:14:15 UTC 2020");
}
