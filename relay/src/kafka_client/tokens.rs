//! OAUTHBEARER: where tokens come from, by the names of Kafka's Java client, told to librdkafka, which fetches them
//! itself (its method `oidc`), and the next before one ends. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::jaas::Login;
use super::{Form, Properties, PropertyError, form, plain, refuse};
use crate::secret::Secret;

const JAAS: &str = "sasl.jaas.config";
const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const METHOD: &str = "sasl.oauthbearer.method";
const URL_ENCODE: &str = "sasl.oauthbearer.header.urlencode";
const AUTHORITIES: &str = "https.ca.location";
const AUTHORITIES_TEXT: &str = "https.ca.pem";

/// librdkafka's name of a credential, Java's since Kafka 4.1, and the option of Java's login module before that.
const CREDENTIALS: [[&str; 3]; 2] = [
    ["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id", "clientId"],
    [
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "clientSecret",
    ],
];

/// What may stand where a choice is made, by the ends of names: Java's classes that do what librdkafka does.
const CHOICES: [(&str, &[&str], &str); 7] = [
    (
        "sasl.login.callback.handler.class",
        &[".OAuthBearerLoginCallbackHandler"],
        "the relay loads no Java class; it fetches tokens as Kafka's own OAuthBearerLoginCallbackHandler does: name that",
    ),
    (
        "sasl.oauthbearer.jwt.retriever.class",
        &[".DefaultJwtRetriever", ".ClientCredentialsJwtRetriever"],
        "the relay fetches tokens with an id and a secret alone: name ClientCredentialsJwtRetriever",
    ),
    (
        "sasl.oauthbearer.jwt.validator.class",
        &[".DefaultJwtValidator", ".ClientJwtValidator"],
        "the relay loads no Java class; remove it",
    ),
    (METHOD, &["oidc"], "the relay has no tokens but those that it fetches: set it to oidc"),
    (
        "sasl.oauthbearer.grant.type",
        &["client_credentials"],
        "the relay fetches tokens with an id and a secret alone: set it to client_credentials",
    ),
    (
        "sasl.oauthbearer.metadata.authentication.type",
        &["none"],
        "the relay fetches tokens with an id and a secret alone: remove it",
    ),
    (
        "enable.sasl.oauthbearer.unsecure.jwt",
        &["false"],
        "a token that nobody signed proves nothing; remove it",
    ),
];

/// What Java's client and its brokers look at in a token: here the broker alone does.
const WITHOUT_COUNTERPART: [&str; 11] = [
    "sasl.oauthbearer.jwt.retriever.class",
    "sasl.oauthbearer.jwt.validator.class",
    "sasl.oauthbearer.jwks.endpoint.url",
    "sasl.oauthbearer.jwks.endpoint.refresh.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
    "sasl.oauthbearer.expected.audience",
    "sasl.oauthbearer.expected.issuer",
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
];

/// Another way to a token: an assertion instead of a secret.
const ASSERTION_PREFIX: &str = "sasl.oauthbearer.assertion.";

/// Whether a property is of tokens: without OAUTHBEARER nobody asks for it.
pub(super) fn is_of_tokens(property: &str) -> bool {
    ["sasl.oauthbearer.", "enable.sasl.oauthbearer.", "https."]
        .iter()
        .any(|prefix| property.starts_with(prefix))
}

/// Tells librdkafka to fetch tokens.
pub(super) fn fetch(
    properties: &mut Properties,
    login: Option<Login>,
) -> Result<(), PropertyError> {
    choices(properties)?;
    let login = login.map(module_options).transpose()?.unwrap_or_default();
    let encode = match properties.remove(URL_ENCODE) {
        None => false,
        Some(encode) => match encode.expose().trim().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(refuse(URL_ENCODE, "it is true or false")),
        },
    };
    credentials(properties, &login, encode)?;
    let scope = properties.remove(SCOPE).or_else(|| login.get("scope").cloned());
    if let Some(scope) = scope {
        // librdkafka writes it into the form as it is.
        properties.insert(SCOPE.to_owned(), form_encoded(&scope));
    }
    extensions(properties, &login)?;
    let has_tls = endpoint(properties)?;
    trust(properties, &login, has_tls)?;
    properties.retain(|name, _| !WITHOUT_COUNTERPART.contains(&name.as_str()));
    properties.insert(METHOD.to_owned(), plain("oidc"));
    Ok(())
}

fn choices(properties: &Properties) -> Result<(), PropertyError> {
    for (property, allowed, problem) in CHOICES {
        let Some(given) = properties.get(property) else { continue };
        let given = given.expose().trim();
        let is_allowed = |name: &&str| match name.strip_prefix('.') {
            // Kafka's own, wherever it stood in older versions; not one of the same name by somebody else.
            Some(class) => {
                given.starts_with("org.apache.kafka.common.security.oauthbearer.")
                    && given.rsplit('.').next() == Some(class)
            }
            None => given.eq_ignore_ascii_case(name),
        };
        if !allowed.iter().any(is_allowed) {
            return Err(refuse(property, problem));
        }
    }
    let other_way =
        |name: &&String| name.starts_with(ASSERTION_PREFIX) || *name == "sasl.oauthbearer.config";
    match properties.keys().find(other_way) {
        None => Ok(()),
        Some(property) => Err(refuse(
            property,
            "the relay fetches tokens with an id and a secret alone; remove it",
        )),
    }
}

/// The options of Java's login module.
fn module_options(login: Login) -> Result<Properties, PropertyError> {
    if !login.module.ends_with("oauthbearer.OAuthBearerLoginModule") {
        let problem = format!("{}: the mechanism wants OAuthBearerLoginModule", login.module);
        return Err(refuse(JAAS, problem));
    }
    if login.options.keys().any(|option| option.starts_with("unsecured")) {
        return Err(refuse(
            JAAS,
            "a token that nobody signed proves nothing; give clientId and clientSecret",
        ));
    }
    Ok(login.options)
}

/// What stands in a property wins over the login module, as in Java.
fn credentials(
    properties: &mut Properties,
    login: &Properties,
    encode: bool,
) -> Result<(), PropertyError> {
    for [own, java, option] in CREDENTIALS {
        let older = properties.remove(own);
        let given = properties.remove(java).or(older).or_else(|| login.get(option).cloned());
        let given = given.filter(|given| !given.expose().is_empty());
        let Some(given) = given else {
            return Err(refuse(
                java,
                format!("not set; set it, or {option}=\"...\" of the login module in {JAAS}"),
            ));
        };
        let given = if encode { form_encoded(&given) } else { given };
        properties.insert(own.to_owned(), given);
    }
    Ok(())
}

/// What stands in a form as it is (WHATWG URL, application/x-www-form-urlencoded); a blank becomes a plus.
const FORM: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b' ');

fn form_encoded(value: &Secret) -> Secret {
    let encoded = utf8_percent_encode(value.expose().trim(), FORM).to_string();
    Secret::new(encoded.replace(' ', "+"))
}

/// What the broker is told beside the token.
fn extensions(properties: &mut Properties, login: &Properties) -> Result<(), PropertyError> {
    const NAMES: &str = "the names of extensions are letters, and none is `auth`";
    let is_name = |name: &str| {
        !name.is_empty() && name != "auth" && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    if let Some(own) = properties.get(EXTENSIONS) {
        let named = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| is_name(name.trim()));
        return match own.expose().split(',').all(named) {
            true => Ok(()),
            false => Err(refuse(EXTENSIONS, format!("it is name=value,name=value; {NAMES}"))),
        };
    }
    let mut pairs = Vec::new();
    for (option, value) in login {
        let Some(name) = option.strip_prefix("extension_") else { continue };
        if !is_name(name) {
            return Err(refuse(JAAS, format!("{option}: {NAMES}")));
        }
        // What would end the pair is escaped.
        let value = value.expose().replace('\\', "\\\\").replace(',', "\\,");
        pairs.push(format!("{name}={value}"));
    }
    if !pairs.is_empty() {
        properties.insert(EXTENSIONS.to_owned(), Secret::new(pairs.join(",")));
    }
    Ok(())
}

/// Looks at the address of the endpoint; whether it speaks TLS.
fn endpoint(properties: &mut Properties) -> Result<bool, PropertyError> {
    let Some(url) = properties.get_mut(URL) else {
        return Err(refuse(URL, "not set; name the provider's endpoint for tokens, https://..."));
    };
    let trimmed = url.expose().trim().to_owned();
    let (scheme, rest) = trimmed.split_once("://").unwrap_or_default();
    let has_tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err(refuse(URL, "the relay fetches tokens from https:// and http:// alone")),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // The address is logged where it does not answer.
    if host.is_empty() || host.contains('@') {
        return Err(refuse(
            URL,
            "it is https://host/path, without a user; id and secret have their own names",
        ));
    }
    *url = plain(&trimmed);
    Ok(has_tls)
}

/// The authorities of the endpoint's certificate: those of Kafka do not count, as with Java's client.
fn trust(
    properties: &mut Properties,
    login: &Properties,
    has_tls: bool,
) -> Result<(), PropertyError> {
    let refuse_option =
        |option: &str, problem: &str| Err(refuse(JAAS, format!("{option}: {problem}")));
    if let Some((option, _)) =
        login.iter().find(|(option, _)| option.starts_with("ssl.key") && has_tls)
    {
        return refuse_option(option, "the relay shows the provider no certificate; remove it");
    }
    if !has_tls || [AUTHORITIES, AUTHORITIES_TEXT].iter().any(|own| properties.contains_key(*own)) {
        return Ok(());
    }
    if let Some(certificates) = login.get("ssl.truststore.certificates") {
        properties.insert(AUTHORITIES_TEXT.to_owned(), certificates.clone());
    } else if let Some(location) = login.get("ssl.truststore.location") {
        let file = location.expose().trim();
        if form(login, "ssl.truststore.type", file)? != Form::Pem {
            return refuse_option(
                "ssl.truststore.location",
                "the relay cannot read Java's truststores; name a PEM file and set ssl.truststore.type to PEM",
            );
        }
        properties.insert(AUTHORITIES.to_owned(), location.clone());
    } else {
        // The system's, wherever it keeps them.
        properties.insert(AUTHORITIES.to_owned(), plain("probe"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, refused};

    const SASL: (&str, &str) = ("security.protocol", "SASL_PLAINTEXT");
    const TOKEN: (&str, &str) = ("sasl.mechanism", "OAUTHBEARER");
    const HTTPS: (&str, &str) = (super::URL, "https://idp/token");
    const HTTP: (&str, &str) = (super::URL, "http://idp/token");
    const OWN_ID: (&str, &str) = ("sasl.oauthbearer.client.id", "relay");
    const OWN_SECRET: (&str, &str) = ("sasl.oauthbearer.client.secret", "hush");
    const PACKAGE: &str = "org.apache.kafka.common.security.oauthbearer";

    fn jaas(options: &str) -> String {
        format!("{PACKAGE}.OAuthBearerLoginModule required {options};")
    }

    /// Checks what librdkafka gets beside what it always gets.
    fn check_tokens(given: &[(&str, &str)], expected: &[(&str, &str)]) {
        let always = [
            ("security.protocol", "sasl_plaintext"),
            TOKEN,
            ("sasl.oauthbearer.method", "oidc"),
            OWN_ID,
            OWN_SECRET,
        ];
        check(&[&[SASL, TOKEN], given].concat(), &[&always[..], expected].concat());
    }

    #[test]
    fn a_login_of_java_becomes_one_that_fetches_tokens() {
        let handler = format!("{PACKAGE}.OAuthBearerLoginCallbackHandler");
        let older = format!("{PACKAGE}.secured.OAuthBearerLoginCallbackHandler");
        let module = jaas(
            "clientId=\"relay\" clientSecret=\"hush\" scope=\"a b/c\" extension_one=\"1,\\\\2\" \
                           extension_two='x=y'",
        );
        for handler in [&*handler, &*older] {
            check_tokens(
                &[
                    ("sasl.login.callback.handler.class", handler),
                    ("sasl.jaas.config", &module),
                    ("sasl.login.connect.timeout.ms", "1000"),
                    ("sasl.oauthbearer.expected.audience", "kafka"),
                    HTTPS,
                ],
                &[
                    HTTPS,
                    ("https.ca.location", "probe"),
                    ("sasl.oauthbearer.scope", "a+b%2Fc"),
                    ("sasl.oauthbearer.extensions", "one=1\\,\\\\2,two=x=y"),
                ],
            );
        }
    }

    #[test]
    fn names_of_kafka_4_and_of_librdkafka_win_over_the_login_module() {
        let module = jaas("clientId=\"x\" clientSecret=\"y\" scope=\"z\"");
        let java = [
            ("sasl.jaas.config", &*module),
            ("sasl.oauthbearer.client.credentials.client.id", "relay"),
            ("sasl.oauthbearer.client.credentials.client.secret", "hush"),
            ("sasl.oauthbearer.scope", "s"),
            HTTP,
        ];
        check_tokens(&java, &[HTTP, ("sasl.oauthbearer.scope", "s")]);
        let own = [
            ("sasl.oauthbearer.method", "OIDC"),
            ("sasl.oauthbearer.extensions", "one=1,two=2"),
            ("https.ca.location", "/ca"),
            OWN_ID,
            OWN_SECRET,
            HTTPS,
        ];
        check_tokens(
            &own,
            &[HTTPS, ("https.ca.location", "/ca"), ("sasl.oauthbearer.extensions", "one=1,two=2")],
        );
        // None of it is handed on where nobody asks for a token.
        let ssl = ("ssl.ca.location", "/ca");
        check(&[&own[..], &[ssl]].concat(), &[ssl]);
    }

    #[test]
    fn credentials_are_encoded_where_java_would_encode_them() {
        let told = super::super::tests::told(&[
            SASL,
            TOKEN,
            HTTP,
            ("sasl.oauthbearer.client.id", "a:b"),
            ("sasl.oauthbearer.client.secret", "ü"),
            ("sasl.oauthbearer.header.urlencode", "true"),
        ]);
        assert_eq!(told["sasl.oauthbearer.client.id"], "a%3Ab");
        assert_eq!(told["sasl.oauthbearer.client.secret"], "%C3%BC");
    }

    #[test]
    fn the_endpoint_s_authorities_are_those_of_the_login_module() {
        let login =
            |trust: &str| jaas(&format!("clientId=\"relay\" clientSecret=\"hush\" {trust}"));
        let file = login("ssl.truststore.location=\"/ca.pem\"");
        check_tokens(
            &[("sasl.jaas.config", &file), HTTPS],
            &[HTTPS, ("https.ca.location", "/ca.pem")],
        );
        let text = login("ssl.truststore.type=PEM ssl.truststore.certificates=\"C\"");
        check_tokens(&[("sasl.jaas.config", &text), HTTPS], &[HTTPS, ("https.ca.pem", "C")]);
        let java = login("ssl.truststore.location=\"/ca.jks\"");
        assert_eq!(refused(&[SASL, TOKEN, HTTPS, ("sasl.jaas.config", &java)]), "sasl.jaas.config");
        let own = login("ssl.keystore.location=\"/k.pem\"");
        assert_eq!(refused(&[SASL, TOKEN, HTTPS, ("sasl.jaas.config", &own)]), "sasl.jaas.config");
    }

    #[test]
    fn tokens_that_cannot_be_fetched_are_refused_by_name() {
        let full = [SASL, TOKEN, HTTPS, OWN_ID, OWN_SECRET];
        for (property, value) in [
            ("sasl.login.callback.handler.class", "com.example.OAuthBearerLoginCallbackHandler"),
            (
                "sasl.login.callback.handler.class",
                "software.amazon.msk.auth.IAMClientCallbackHandler",
            ),
            (
                "sasl.oauthbearer.jwt.retriever.class",
                "org.apache.kafka.common.security.oauthbearer.JwtBearerJwtRetriever",
            ),
            ("sasl.oauthbearer.jwt.validator.class", "x.Y"),
            ("sasl.oauthbearer.grant.type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("sasl.oauthbearer.assertion.file", "/assertion"),
            ("sasl.oauthbearer.metadata.authentication.type", "azure_imds"),
            ("sasl.oauthbearer.method", "default"),
            ("sasl.oauthbearer.config", "principal=hush"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("sasl.oauthbearer.token.endpoint.url", "file:///token"),
            ("sasl.oauthbearer.token.endpoint.url", "https://relay:hush@idp/token"),
            ("sasl.oauthbearer.extensions", "auth=1"),
            ("sasl.oauthbearer.extensions", "hush"),
            ("sasl.oauthbearer.header.urlencode", "hush"),
        ] {
            let given = full.into_iter().filter(|(name, _)| *name != property);
            let given: Vec<_> = given.chain([(property, value)]).collect();
            assert_eq!(refused(&given), property, "{value}");
        }
        let plain_module = "x.plain.PlainLoginModule required username=\"u\" password=\"hush\";";
        let unsecured = jaas("unsecuredLoginStringClaim_sub=\"hush\"");
        let extension = jaas("extension_a1=\"hush\"");
        for module in [plain_module, &unsecured, &extension] {
            let given = [&full[..], &[("sasl.jaas.config", module)]].concat();
            assert_eq!(refused(&given), "sasl.jaas.config");
        }
    }

    #[test]
    fn what_is_missing_for_a_token_is_named() {
        let missing = |given: &[(&str, &str)]| refused(&[&[SASL, TOKEN], given].concat());
        assert_eq!(missing(&[OWN_ID, OWN_SECRET]), super::URL);
        let id = "sasl.oauthbearer.client.credentials.client.id";
        assert_eq!(missing(&[HTTPS]), id);
        assert_eq!(missing(&[HTTPS, ("sasl.jaas.config", &jaas("clientSecret=\"hush\""))]), id);
        let secret = "sasl.oauthbearer.client.credentials.client.secret";
        assert_eq!(missing(&[HTTPS, ("sasl.jaas.config", &jaas("clientId=\"relay\""))]), secret);
    }

    /// Without a libcurl its configure script leaves this out, and tells nobody.
    #[test]
    fn our_librdkafka_can_fetch_tokens() {
        let mut config = rdkafka::ClientConfig::new();
        config.set("builtin.features", "ssl,sasl_oauthbearer,oidc");
        assert!(config.create_native_config().is_ok(), "see .cargo/librdkafka/libcurl.so");
    }
}
