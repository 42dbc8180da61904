//! Everything testbed takes from its environment: where the cache lies, which servers to use, how to call cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const TESTBED_CACHE: &str = "TESTBED_CACHE";
const TESTBED_POSTGRES: &str = "TESTBED_POSTGRES";
const TESTBED_MYSQL: &str = "TESTBED_MYSQL";
const CACHE_FOLDER: &str = "outbox-testbed";

/// Where to take a database server from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChoice {
    /// An installed one where there is one, else the one Maven brings.
    Any,
    /// The one Maven brings, whatever is installed (`maven`).
    Maven,
    /// The server in this folder (its `bin`), or this program itself.
    At(PathBuf),
}

/// What the environment says, read once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds the fetched servers (`TESTBED_CACHE`, else the user's cache folder).
    pub cache: PathBuf,
    /// `TESTBED_POSTGRES`: `maven` or a folder with `initdb` and `postgres`.
    pub postgres: ServerChoice,
    /// `TESTBED_MYSQL`: `maven` or the path of `mysqld` or `mariadbd`.
    pub mysql: ServerChoice,
    /// Folders of `PATH`.
    pub path: Vec<PathBuf>,
    /// `JAVA_HOME`, where set.
    pub java_home: Option<PathBuf>,
    /// The `cargo` that runs us, or the one in `PATH`.
    pub cargo: OsString,
    /// Parent of the data folders of one run.
    pub temp: PathBuf,
    /// `NO_COLOR` is set: no colours, even on a terminal.
    pub no_color: bool,
}

impl Settings {
    /// Reads the environment.
    #[allow(clippy::disallowed_methods)] // The one place that reads the environment.
    #[must_use]
    pub fn read() -> Self {
        let path_of = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            cache: cache_folder(
                path_of(TESTBED_CACHE),
                path_of("XDG_CACHE_HOME"),
                path_of("HOME"),
                rustix::process::geteuid().is_root(),
            ),
            postgres: server_choice(path_of(TESTBED_POSTGRES)),
            mysql: server_choice(path_of(TESTBED_MYSQL)),
            path: env::var_os("PATH").map(|p| env::split_paths(&p).collect()).unwrap_or_default(),
            java_home: path_of("JAVA_HOME"),
            cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            temp: env::temp_dir(),
            no_color: env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }

    /// The first file of that name in `PATH`.
    #[must_use]
    pub fn find_in_path(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|file| is_program(file))
    }
}

/// Whether this is a file that someone may execute.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn server_choice(value: Option<PathBuf>) -> ServerChoice {
    match value {
        None => ServerChoice::Any,
        Some(value) if value == Path::new("maven") => ServerChoice::Maven,
        Some(value) => ServerChoice::At(value),
    }
}

/// Root's home is closed to the unprivileged user that PostgreSQL must run as, so root's cache lies in `/var/cache`.
fn cache_folder(
    own: Option<PathBuf>,
    xdg: Option<PathBuf>,
    home: Option<PathBuf>,
    is_root: bool,
) -> PathBuf {
    own.or_else(|| xdg.map(|folder| folder.join(CACHE_FOLDER))).unwrap_or_else(|| {
        if is_root {
            return Path::new("/var/cache").join(CACHE_FOLDER);
        }
        home.map_or_else(
            || env::temp_dir().join(CACHE_FOLDER),
            |folder| folder.join(".cache").join(CACHE_FOLDER),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: Option<&str>, xdg: Option<&str>, home: &str, is_root: bool, expected: &str) {
        let found = cache_folder(
            own.map(PathBuf::from),
            xdg.map(PathBuf::from),
            Some(PathBuf::from(home)),
            is_root,
        );
        assert_eq!(found, Path::new(expected));
    }

    #[test]
    fn the_cache_is_where_the_user_says_or_where_the_platform_keeps_caches() {
        check(Some("/a"), Some("/x"), "/home/ada", false, "/a");
        check(None, Some("/x"), "/home/ada", false, "/x/outbox-testbed");
        check(None, None, "/home/ada", false, "/home/ada/.cache/outbox-testbed");
    }

    #[test]
    fn root_keeps_its_cache_where_an_unprivileged_server_can_read_it() {
        check(None, None, "/root", true, "/var/cache/outbox-testbed");
        check(Some("/a"), None, "/root", true, "/a");
    }

    #[test]
    fn a_server_is_taken_from_maven_or_from_a_path() {
        assert_eq!(server_choice(None), ServerChoice::Any);
        assert_eq!(server_choice(Some("maven".into())), ServerChoice::Maven);
        assert_eq!(server_choice(Some("/opt/pg".into())), ServerChoice::At("/opt/pg".into()));
    }
}
