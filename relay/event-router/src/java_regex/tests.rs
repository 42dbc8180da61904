//! Expressions and what Java makes of them.

use proptest::prelude::*;

use super::*;

fn check(expression: &str, text: &str, expected: bool) {
    let regex = Regex::new(expression).expect("a Java expression");
    assert_eq!(regex.matches(text), Ok(expected), "{expression} on {text:?}");
}

fn check_found(expression: &str, text: &str, expected: &[Option<&str>]) {
    let regex = Regex::new(expression).expect("a Java expression");
    let found = regex.find(text).expect("few steps").expect("a match");
    let groups: Vec<_> = (0..=regex.group_count()).map(|index| found.group(index)).collect();
    assert_eq!(groups, expected, "{expression} on {text:?}");
}

#[test]
fn classes_are_ascii_unless_asked_otherwise() {
    check(r"\w+", "abc_1", true);
    check(r"\w+", "käse", false);
    check(r"\p{L}+", "käse", true);
    check(r"\p{Lu}\p{Lower}+", "Abc", true);
    check(r"[\p{IsCyrillic}\d]+", "заказ1", true);
    check("[а-я]+", "заказ", true);
    check(r"\S\D\W", "ab-", true);
}

#[test]
fn classes_have_unions_intersections_and_negation() {
    check("[a-z&&[^b]]+", "acd", true);
    check("[a-z&&[^b]]+", "abc", false);
    check("[a-c[x-z]]+", "axz", true);
    check("[^a-c]+", "xyz", true);
    check("[]a]+", "]a", true);
    check("[a-]+", "a-a", true);
    check(r"[\Q^]\E]+", "^]", true);
}

#[test]
fn quantifiers_are_greedy_lazy_or_possessive() {
    check_found("(a+?)(a*)", "aaa", &[Some("aaa"), Some("a"), Some("aa")]);
    check("a++a", "aaa", false);
    check("(?:ab){2,3}", "ababab", true);
    check("(?:ab){2,3}", "ab", false);
    check("(a*)*", "aaa", true);
    check("(a|b)*?c", "abc", true);
    check("(?>a|ab)c", "abc", false);
}

#[test]
fn look_around_and_back_references_work() {
    check(r"(?=.*Order)(?<r>\w++)", "MyOrder", true);
    check(r"(?=.*Order)(?<r>\w++)", "Customer", false);
    check(r"(?!x).*", "xy", false);
    check(r".*(?<=Event)", "OrderEvent", true);
    check(r".*(?<!Event)", "OrderEvent", false);
    check(r"(\w+)-\1", "a-a", true);
    check(r"(\w+)-\1", "a-b", false);
    check(r"(?<n>a|b)\k<n>", "bb", true);
}

#[test]
fn flags_change_case_dots_and_white_space() {
    check("(?i)ORDER(s?)", "orderS", true);
    check("(?i)Ä", "ä", false);
    check("(?iu)Ä", "ä", true);
    check(r"\w+", "ä", false);
    check(r"(?U)\w+\p{Upper}", "äÖ", true);
    check("a(?i:b)c", "aBc", true);
    check("a(?i:b)c", "aBC", false);
    check(".", "\n", false);
    check("(?s).", "\n", true);
    check("(?x) a b # comment", "ab", true);
    check(r"\Qa.b\E+", "a.bb", true);
    check(r"a$", "a", true);
    check(r"\x41\u0042\0103", "ABC", true);
}

#[test]
fn alternatives_are_tried_in_order() {
    check_found("a|ab", "ab", &[Some("a")]);
    check_found("(a)|(b)", "b", &[Some("b"), None, Some("b")]);
    check_found("x*", "aax", &[Some("")]);
}

#[test]
fn what_java_refuses_is_refused() {
    for expression in [
        " [[a-z]",
        "(a",
        "a)",
        "*a",
        "a{",
        "a{2,1}",
        "{1}",
        "\\",
        "\\j",
        "(?<1a>x)",
        "(?<a>x)(?<a>y)",
        "\\k<a>",
        "[z-a]",
        "\\p{NoSuch}",
        "(?<=a+)b",
        "\\xZZ",
        "(?q)",
    ] {
        assert!(Regex::new(expression).is_err(), "{expression}");
    }
}

#[test]
fn nested_repetition_gives_up_instead_of_hanging() {
    let regex = Regex::new("(a+)+(a+)+(a+)+b").expect("a Java expression");
    assert_eq!(regex.matches(&"a".repeat(60)), Err(TooManySteps));
}

proptest! {
    #[test]
    fn any_expression_and_text_end_without_panic(expression in "\\PC{0,20}", text in "\\PC{0,20}") {
        if let Ok(regex) = Regex::new(&expression) {
            let _ = regex.matches(&text);
            let _ = regex.find(&text);
        }
    }

    #[test]
    fn expressions_that_both_know_match_alike(
        expression in "([abc.]|a\\*|\\(b\\|c\\)|[ab]\\+\\?|\\[a-b\\]|\\(\\?:ab\\)\\{1,2\\}|\\^|\\$){0,6}",
        text in "[abc]{0,8}",
    ) {
        let ours = Regex::new(&expression).expect("a Java expression");
        let theirs = regex::Regex::new(&format!("^(?:{expression})$")).expect("a Rust expression");
        prop_assert_eq!(ours.matches(&text), Ok(theirs.is_match(&text)));
        let first = regex::Regex::new(&expression).expect("a Rust expression").find(&text).map(|found| found.as_str().to_owned());
        prop_assert_eq!(ours.find(&text).expect("few steps").and_then(|found| found.group(0).map(str::to_owned)), first);
    }
}
