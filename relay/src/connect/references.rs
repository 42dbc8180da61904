//! `${provider:path:key}` in values: resolved when a task is started, stored and shown as written.
//!
//! Kafka's providers `file` (a Java properties file), `env` and `dir` (a file per key) are there without being
//! configured; `config.providers` with `config.providers.<name>.param.*` limits and renames them as in Kafka Connect.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use event_router::java_properties::Properties as JavaProperties;
use regex::Regex;

use super::storage::Properties;
use crate::config::{ConfigError, Environment, WorkerConfig};

/// A properties file with secrets is small; a larger one is a mistake.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where a provider looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Env,
    Dir,
}

/// What a provider may give away.
#[derive(Debug)]
enum Limit {
    None,
    /// `allowed.paths` of `file` and `dir`.
    Paths(Vec<String>),
    /// `allowlist.pattern` of `env`, for whole names.
    Names(Regex),
}

/// The providers of a worker, by the name they are used under.
#[derive(Debug)]
pub(super) struct Providers<'a> {
    providers: BTreeMap<String, (Kind, Limit)>,
    environment: &'a Environment,
}

/// Whether the worker's providers are ones that the relay has: what another one would have replaced would go out as it
/// is written.
///
/// # Errors
/// The property that names another one, or a pattern that cannot be read.
pub(super) fn check(worker: &WorkerConfig) -> Result<(), ConfigError> {
    for name in names(worker) {
        let variable = format!("config.providers.{name}.class");
        let class = worker.properties.get(&variable);
        if kind(class.unwrap_or(&name)).is_none() {
            let problem = format!(
                "{}: the relay has FileConfigProvider, DirectoryConfigProvider and EnvVarConfigProvider of Kafka",
                class.map_or_else(|| "not set".to_owned(), str::to_owned)
            );
            return Err(ConfigError { variable, problem });
        }
        let variable = format!("config.providers.{name}.{NAMES_PATTERN}");
        if let Some(pattern) = worker.properties.get(&variable)
            && let Err(error) = whole(pattern)
        {
            let problem = format!("it is no regular expression: {error}");
            return Err(ConfigError { variable, problem });
        }
    }
    Ok(())
}

const NAMES_PATTERN: &str = "param.allowlist.pattern";

fn names(worker: &WorkerConfig) -> Vec<String> {
    let names = worker.properties.get("config.providers").unwrap_or("file,env,dir");
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// As Java matches: the whole text.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

impl<'a> Providers<'a> {
    pub(super) fn new(worker: &'a WorkerConfig) -> Self {
        let provider = |name: String| {
            let property =
                |rest: &str| worker.properties.get(&format!("config.providers.{name}.{rest}"));
            let kind = kind(property("class").unwrap_or(&name))?;
            let limit = match kind {
                Kind::Env => match property(NAMES_PATTERN) {
                    None => Limit::None,
                    // One that cannot be read was refused at the start.
                    Some(pattern) => Limit::Names(whole(pattern).ok()?),
                },
                Kind::File | Kind::Dir => match property("param.allowed.paths") {
                    None => Limit::None,
                    Some(paths) => {
                        let paths = paths.split(',').map(str::trim).filter(|path| !path.is_empty());
                        Limit::Paths(paths.map(str::to_owned).collect())
                    }
                },
            };
            Some((name, (kind, limit)))
        };
        let providers = names(worker).into_iter().filter_map(provider).collect();
        Self { providers, environment: &worker.environment }
    }

    /// All values with their references replaced; nulls are left out.
    ///
    /// # Errors
    /// What a reference names and cannot be read, with the option's name; never a secret.
    pub(super) fn resolve(
        &self,
        properties: &Properties,
    ) -> Result<BTreeMap<String, String>, String> {
        let given = properties.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let resolved = given.map(|(name, value)| {
            let value = self.replace(value).map_err(|reason| format!("{name}: {reason}"))?;
            Ok((name.clone(), value))
        });
        resolved.collect()
    }

    fn replace(&self, value: &str) -> Result<String, String> {
        let mut result = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            result.push_str(before);
            let Some(end) = reference.find('}') else {
                result.push_str(reference);
                return Ok(result);
            };
            let (whole, after) = reference.split_at(end + 1);
            match self.look_up(&whole[2..end])? {
                Some(found) => result.push_str(&found),
                // `${routedByValue}` and the like belong to somebody else.
                None => result.push_str(whole),
            }
            rest = after;
        }
        result.push_str(rest);
        Ok(result)
    }

    fn look_up(&self, reference: &str) -> Result<Option<String>, String> {
        let Some((provider, path_and_key)) = reference.split_once(':') else { return Ok(None) };
        let Some((kind, limit)) = self.providers.get(provider) else { return Ok(None) };
        // The path may hold colons on some systems, the key does not.
        let (path, key) = path_and_key.rsplit_once(':').unwrap_or(("", path_and_key));
        let missing = || format!("${{{reference}}} names nothing that is there");
        if *kind != Kind::Env {
            check_path(path, limit)?;
        }
        if let Limit::Names(pattern) = limit
            && !pattern.is_match(key)
        {
            return Err(format!("{key} is not within {NAMES_PATTERN} of the provider {provider}"));
        }
        let found = match kind {
            Kind::Env => self.environment.get(key).map(str::to_owned),
            Kind::File => {
                let text = read_small(Path::new(path))?.unwrap_or_default();
                let properties =
                    JavaProperties::load(&text).map_err(|error| format!("{path}: {}", error.0))?;
                properties.get(key).map(str::to_owned)
            }
            Kind::Dir if is_file_name(key) => read_small(&Path::new(path).join(key))?,
            Kind::Dir => None,
        };
        found.map(Some).ok_or_else(missing)
    }
}

fn kind(class_or_name: &str) -> Option<Kind> {
    // Kafka's own; one of the same name by somebody else may do more than read.
    let name = class_or_name.strip_prefix("org.apache.kafka.common.config.provider.");
    match name.unwrap_or(class_or_name) {
        "file" | "FileConfigProvider" => Some(Kind::File),
        "env" | "EnvVarConfigProvider" => Some(Kind::Env),
        "dir" | "directory" | "DirectoryConfigProvider" => Some(Kind::Dir),
        _ => None,
    }
}

fn check_path(path: &str, limit: &Limit) -> Result<(), String> {
    let plain = Path::new(path).components().all(|part| part != Component::ParentDir);
    let within = match limit {
        Limit::Paths(roots) => roots.iter().any(|root| Path::new(path).starts_with(root)),
        Limit::None | Limit::Names(_) => true,
    };
    if plain && within { Ok(()) } else { Err(format!("{path} is outside of allowed.paths")) }
}

fn is_file_name(key: &str) -> bool {
    let mut parts = Path::new(key).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// `None`: there is no such file.
fn read_small(path: &Path) -> Result<Option<String>, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
        Ok(about) if !about.is_file() => Ok(None),
        Ok(about) if about.len() > FILE_MAX_BYTES => {
            Err(format!("{} is larger than {FILE_MAX_BYTES} bytes", path.display()))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(variables: &[(&str, &str)]) -> WorkerConfig {
        let kafka = [("BOOTSTRAP_SERVERS", "kafka:9092"), ("PG_PASSWORD", "hush")];
        let all = kafka.iter().chain(variables).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        WorkerConfig::from_variables(all).unwrap()
    }

    #[test]
    fn environment_references_are_resolved_and_foreign_ones_are_left() {
        let worker = worker(&[]);
        let providers = Providers::new(&worker);
        assert_eq!(providers.replace("a${env:PG_PASSWORD}b").unwrap(), "ahushb");
        for other in ["${routedByValue}Events", "${vault:a:b}", "plain", "${env:PG_PASSWORD"] {
            assert_eq!(providers.replace(other).unwrap(), other);
        }
        let error = providers.replace("${env:NOT_THERE}").unwrap_err();
        assert!(error.contains("NOT_THERE") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn a_provider_that_the_relay_does_not_have_is_refused_by_name() {
        let vault = [
            ("CONNECT_CONFIG_PROVIDERS", "env, vault"),
            ("CONNECT_CONFIG_PROVIDERS_VAULT_CLASS", "com.example.VaultConfigProvider"),
        ];
        let error = check(&worker(&vault)).unwrap_err();
        assert_eq!(error.variable, "config.providers.vault.class");
        assert!(error.problem.contains("VaultConfigProvider"), "{error:?}");
        assert!(check(&worker(&vault[..1])).is_err(), "a name alone says nothing");
        let class = ("CONNECT_CONFIG_PROVIDERS_ENV_CLASS", "com.example.FileConfigProvider");
        assert!(check(&worker(&[class])).is_err(), "it may decrypt what it reads");
        assert!(check(&worker(&[])).is_ok());
    }

    #[test]
    fn the_environment_is_limited_to_the_names_that_are_allowed() {
        let pattern = |pattern| {
            worker(&[
                ("CONNECT_CONFIG_PROVIDERS", "env"),
                ("CONNECT_CONFIG_PROVIDERS_ENV_PARAM_ALLOWLIST_PATTERN", pattern),
            ])
        };
        let open = pattern("PG_.*");
        let providers = Providers::new(&open);
        assert_eq!(providers.replace("${env:PG_PASSWORD}").unwrap(), "hush");
        let refused = providers.replace("${env:BOOTSTRAP_SERVERS}").unwrap_err();
        assert!(refused.contains("allowlist.pattern"), "{refused}");
        assert_eq!(
            check(&pattern("(")).unwrap_err().variable,
            "config.providers.env.param.allowlist.pattern"
        );
    }

    #[test]
    fn files_and_folders_are_read_within_the_allowed_paths() {
        let folder = std::env::temp_dir().join(format!("relay-references-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("pw"), "from a folder").unwrap();
        std::fs::write(folder.join("secrets.properties"), "# pw=no\npw = from a file\n").unwrap();
        let at = folder.display().to_string();
        let open = worker(&[]);
        let providers = Providers::new(&open);
        let look = |text: String| providers.replace(&text);
        assert_eq!(look(format!("${{dir:{at}:pw}}")).unwrap(), "from a folder");
        assert_eq!(look(format!("${{file:{at}/secrets.properties:pw}}")).unwrap(), "from a file");
        assert!(look(format!("${{dir:{at}:../pw}}")).is_err());
        let closed = worker(&[
            ("CONNECT_CONFIG_PROVIDERS", "dir"),
            (
                "CONNECT_CONFIG_PROVIDERS_DIR_CLASS",
                "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
            ),
            ("CONNECT_CONFIG_PROVIDERS_DIR_PARAM_ALLOWED_PATHS", "/run/secrets"),
        ]);
        let providers = Providers::new(&closed);
        assert!(providers.replace(&format!("${{dir:{at}:pw}}")).is_err());
        assert_eq!(providers.replace("${env:PG_PASSWORD}").unwrap(), "${env:PG_PASSWORD}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
