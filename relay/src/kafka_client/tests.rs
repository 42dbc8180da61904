//! Tests of the translation.

use super::*;

const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required \
                     username=\"alice\" password=\"hush\";";

fn properties(given: &[(&str, &str)]) -> Properties {
    given.iter().map(|(name, value)| ((*name).to_owned(), plain(value))).collect()
}

/// What librdkafka gets, as text.
pub(super) fn told(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    let translated = translate(&properties(given)).unwrap();
    translated.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
}

pub(super) fn check(given: &[(&str, &str)], expected: &[(&str, &str)]) {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    assert_eq!(told(given), expected.iter().map(text).collect(), "{given:?}");
}

pub(super) fn refused(given: &[(&str, &str)]) -> String {
    let error = translate(&properties(given)).unwrap_err();
    assert!(!format!("{error:?}").contains("hush"), "{error}");
    error.property
}

#[test]
fn what_is_not_security_stays_as_it_is() {
    check(&[("linger.ms", "5"), ("acks", "all")], &[("acks", "all"), ("linger.ms", "5")]);
    assert!(is_security("ssl.key.password") && is_security("security.protocol"));
    assert!(!is_security("linger.ms") && !is_security("client.id"));
}

#[test]
fn a_login_of_java_becomes_user_and_password() {
    check(
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.jaas.config", SCRAM),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", "/etc/ca"),
            ("ssl.truststore.password", ""),
        ],
        &[
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", "hush"),
            ("sasl.username", "alice"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/etc/ca"),
        ],
    );
    // librdkafka's own names are understood, and credentials that nobody asks for are not handed on.
    let own = [("sasl.username", "alice"), ("sasl.password", "hush"), ("sasl.mechanisms", "plain")];
    let sasl = [&own[..], &[("security.protocol", "SASL_PLAINTEXT")]].concat();
    assert_eq!(told(&sasl)["sasl.mechanism"], "PLAIN");
    assert_eq!(told(&sasl)["sasl.password"], "hush");
    check(&own, &[]);
}

#[test]
fn tls_trusts_the_system_s_authorities_unless_others_are_given() {
    check(
        &[("security.protocol", "SSL")],
        &[("security.protocol", "ssl"), ("ssl.ca.location", "probe")],
    );
    let pem = "-----BEGIN CERTIFICATE-----";
    let given = [("security.protocol", "SSL"), ("ssl.truststore.certificates", pem)];
    check(&given, &[("security.protocol", "ssl"), ("ssl.ca.pem", pem)]);
    let unchecked = [("security.protocol", "SSL"), ("ssl.endpoint.identification.algorithm", " ")];
    assert_eq!(told(&unchecked)["ssl.endpoint.identification.algorithm"], "none");
}

#[test]
fn tuning_of_java_s_tls_is_left_out() {
    let tuned = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", "/ca"),
        ("ssl.protocol", "TLSv1.3"),
        ("ssl.enabled.protocols", "TLSv1.2, TLSv1.3"),
    ];
    check(&tuned, &[("security.protocol", "ssl"), ("ssl.ca.location", "/ca")]);
    // Of a door that nobody goes through.
    check(&[("ssl.enabled.protocols", "TLSv1.3")], &[]);
}

#[test]
fn keystores_are_taken_as_pem_and_pkcs12() {
    let ssl = ("security.protocol", "SSL");
    let pem = told(&[ssl, ("ssl.keystore.location", "/c.pem"), ("ssl.key.password", "hush")]);
    assert_eq!(
        (&*pem["ssl.certificate.location"], &*pem["ssl.key.location"]),
        ("/c.pem", "/c.pem")
    );
    assert_eq!(pem["ssl.key.password"], "hush");
    let text = told(&[
        ssl,
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.key", "K"),
        ("ssl.keystore.certificate.chain", "C"),
    ]);
    assert_eq!((&*text["ssl.key.pem"], &*text["ssl.certificate.pem"]), ("K", "C"));
    let bundle = told(&[
        ssl,
        ("ssl.keystore.location", "/c"),
        ("ssl.keystore.type", "pkcs12"),
        ("ssl.keystore.password", "hush"),
    ]);
    assert_eq!((&*bundle["ssl.keystore.location"], bundle.len()), ("/c", 4));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let ssl = ("security.protocol", "SSL");
    let sasl = ("security.protocol", "SASL_SSL");
    let plain = ("sasl.mechanism", "PLAIN");
    let token = ("sasl.mechanism", "OAUTHBEARER");
    for (given, property) in [
        (&[("security.protocol", "TLS")][..], "security.protocol"),
        (&[sasl], "sasl.mechanism"),
        (&[sasl, ("sasl.mechanism", "AWS_MSK_IAM")], "sasl.mechanism"),
        (&[sasl, plain], "sasl.jaas.config"),
        (&[sasl, plain, ("sasl.jaas.config", "hush")], "sasl.jaas.config"),
        (
            &[sasl, plain, ("sasl.jaas.config", "x.Krb5LoginModule required password=\"hush\";")],
            "sasl.jaas.config",
        ),
        (&[sasl, token, ("sasl.jaas.config", SCRAM)], "sasl.jaas.config"),
        (&[ssl, ("ssl.truststore.location", "/t.jks")], "ssl.truststore.location"),
        (&[ssl, ("ssl.truststore.location", "/t.p12")], "ssl.truststore.location"),
        (&[ssl, ("ssl.keystore.location", "/k.jks")], "ssl.keystore.location"),
        (
            &[ssl, ("ssl.keystore.location", "/k"), ("ssl.keystore.type", "BKS")],
            "ssl.keystore.type",
        ),
        (&[ssl, ("ssl.engine.factory.class", "x.Y")], "ssl.engine.factory.class"),
        // Quietly taking an older protocol, too, would be a lock left open.
        (&[ssl, ("ssl.enabled.protocols", "TLSv1.3")], "ssl.enabled.protocols"),
        (&[ssl, ("ssl.enabled.protocols", "TLSv1.1")], "ssl.enabled.protocols"),
    ] {
        assert_eq!(refused(given), property, "{given:?}");
    }
}
