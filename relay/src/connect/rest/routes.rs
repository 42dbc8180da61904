//! Paths of the REST API: which resource a path names, and what may be done to it. Pure.

use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Root,
    Health,
    Live,
    Ready,
    Metrics,
    Connectors,
    Connector(String),
    Config(String),
    Status(String),
    Restart(String),
    Stop(String),
    Pause(String),
    Resume(String),
    Tasks(String),
    /// Task ids stay text until the method is known, as in Kafka Connect.
    TaskStatus(String, String),
    TaskRestart(String, String),
    Fence(String),
    Topics(String),
    TopicsReset(String),
    Offsets(String),
    /// Of the relay alone, as is the next.
    DeadLetters(String),
    DeadLettersReplay(String),
    Plugins,
    PluginConfig(String),
    PluginValidate(String),
    Loggers,
    Logger(String),
}

/// Why a path names nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoResource {
    Unknown,
    /// Kafka Connect's web server refuses paths that can be read in two ways.
    Refused(&'static str),
}

impl Resource {
    /// The resource that a path (as sent, percent-encoded) names; a trailing slash means nothing.
    pub(super) fn find(path: &str) -> Result<Self, NoResource> {
        check_unambiguous(path)?;
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self::Root);
        }
        let segments: Vec<String> = path.split('/').map(decode).collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Self::named(&segments).ok_or(NoResource::Unknown)
    }

    fn named(segments: &[&str]) -> Option<Self> {
        let owned = |text: &&str| (*text).to_owned();
        Some(match segments {
            ["health"] => Self::Health,
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["connectors"] => Self::Connectors,
            ["connectors", name] => Self::Connector(owned(name)),
            ["connectors", name, "config"] => Self::Config(owned(name)),
            ["connectors", name, "status"] => Self::Status(owned(name)),
            ["connectors", name, "restart"] => Self::Restart(owned(name)),
            ["connectors", name, "stop"] => Self::Stop(owned(name)),
            ["connectors", name, "pause"] => Self::Pause(owned(name)),
            ["connectors", name, "resume"] => Self::Resume(owned(name)),
            ["connectors", name, "fence"] => Self::Fence(owned(name)),
            ["connectors", name, "topics"] => Self::Topics(owned(name)),
            ["connectors", name, "topics", "reset"] => Self::TopicsReset(owned(name)),
            ["connectors", name, "offsets"] => Self::Offsets(owned(name)),
            ["connectors", name, "dead-letters"] => Self::DeadLetters(owned(name)),
            ["connectors", name, "dead-letters", "replay"] => Self::DeadLettersReplay(owned(name)),
            ["connectors", name, "tasks"] => Self::Tasks(owned(name)),
            ["connectors", name, "tasks", task, "status"] => {
                Self::TaskStatus(owned(name), owned(task))
            }
            ["connectors", name, "tasks", task, "restart"] => {
                Self::TaskRestart(owned(name), owned(task))
            }
            ["connector-plugins"] => Self::Plugins,
            ["connector-plugins", plugin, "config"] => Self::PluginConfig(owned(plugin)),
            ["connector-plugins", plugin, "config", "validate"] => {
                Self::PluginValidate(owned(plugin))
            }
            ["admin", "loggers"] => Self::Loggers,
            ["admin", "loggers", name] => Self::Logger(owned(name)),
            _ => return None,
        })
    }

    /// Methods besides HEAD and OPTIONS, in alphabetical order.
    pub(super) const fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Connectors => &["GET", "POST"],
            Self::Connector(_) => &["DELETE", "GET"],
            Self::Config(_) => &["GET", "PATCH", "PUT"],
            Self::Tasks(_) => &["GET", "POST"],
            Self::Offsets(_) => &["DELETE", "GET", "PATCH"],
            Self::Logger(_) => &["GET", "PUT"],
            Self::Restart(_) | Self::TaskRestart(..) | Self::DeadLettersReplay(_) => &["POST"],
            Self::Stop(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Fence(_)
            | Self::TopicsReset(_)
            | Self::PluginValidate(_) => &["PUT"],
            _ => &["GET"],
        }
    }

    /// What OPTIONS answers.
    pub(super) fn options(&self) -> String {
        let mut all = self.methods().to_vec();
        if all.contains(&"GET") {
            all.push("HEAD");
        }
        all.push("OPTIONS");
        all.sort_unstable();
        all.join(", ")
    }

    /// Whether it is asked by probes and collectors, for what this process knows without waiting.
    pub(super) const fn is_for_probes(&self) -> bool {
        matches!(self, Self::Health | Self::Live | Self::Ready | Self::Metrics)
    }

    /// Whether a request may only carry JSON, whatever it does with it.
    pub(super) const fn wants_json(&self) -> bool {
        !self.is_for_probes() && !matches!(self, Self::Root)
    }
}

fn check_unambiguous(path: &str) -> Result<(), NoResource> {
    let lower = path.to_ascii_lowercase();
    let refused = |reason| Err(NoResource::Refused(reason));
    if lower.contains("//") {
        refused("Ambiguous URI empty segment")
    } else if lower.contains("%2f") {
        refused("Ambiguous URI path separator")
    } else if lower.contains("%25") {
        refused("Ambiguous URI path encoding")
    } else if lower.split('/').any(|segment| matches!(segment, "%2e" | "%2e%2e" | ".%2e" | "%2e."))
    {
        refused("Ambiguous URI path segment")
    } else {
        Ok(())
    }
}

/// One segment, decoded and without the matrix parameters that Java's web servers cut off.
fn decode(segment: &str) -> Result<String, NoResource> {
    let segment = segment.split(';').next().unwrap_or_default();
    let text = percent_decode_str(segment).decode_utf8();
    Ok(text.map_err(|_| NoResource::Refused("Bad UTF8 encoding"))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_trailing_slashes_mean_nothing() {
        let check = |path: &str, resource: Resource| assert_eq!(Resource::find(path), Ok(resource));
        check("/", Resource::Root);
        check("/connectors/", Resource::Connectors);
        check("/connectors/with%20space", Resource::Connector("with space".into()));
        check("/connectors/with+plus/status/", Resource::Status("with+plus".into()));
        check(
            "/connectors/b%C3%BCro/tasks/x/status",
            Resource::TaskStatus("büro".into(), "x".into()),
        );
        check("/metrics", Resource::Metrics);
        check("/connectors/a/dead-letters", Resource::DeadLetters("a".into()));
        check("/connectors/a/dead-letters/replay", Resource::DeadLettersReplay("a".into()));
        check("/admin/loggers/org.apache", Resource::Logger("org.apache".into()));
    }

    #[test]
    fn what_names_nothing_is_told_from_what_is_ambiguous() {
        let check =
            |path: &str, why: NoResource| assert_eq!(Resource::find(path), Err(why), "{path}");
        for path in ["/nope", "/connectors/a/b", "/connectors/a/tasks/0", "/admin"] {
            check(path, NoResource::Unknown);
        }
        check("//connectors", NoResource::Refused("Ambiguous URI empty segment"));
        check("/connectors/a%2Fb", NoResource::Refused("Ambiguous URI path separator"));
        check("/connectors/a%252Fb", NoResource::Refused("Ambiguous URI path encoding"));
        check("/connectors/%ff", NoResource::Refused("Bad UTF8 encoding"));
    }

    #[test]
    fn options_are_sorted_and_include_head_where_get_is() {
        assert_eq!(Resource::Connectors.options(), "GET, HEAD, OPTIONS, POST");
        assert_eq!(Resource::Pause("a".into()).options(), "OPTIONS, PUT");
    }
}
