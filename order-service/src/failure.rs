//! What can go wrong with a use case, and what the caller can do about it: look elsewhere, try again, or report a bug.

use thiserror::Error;

/// SQLSTATE classes and codes that say "not now": another attempt may succeed without anybody changing anything.
///
/// 08 connection exception, 53 insufficient resources, 57P shutdown or starting up, 57014 statement timeout, 55P03 lock
/// timeout, 40 deadlock or serialization failure, 25006 read-only (a failover is going on), 3D000 and 28 database or user not
/// there (yet). See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
const UNAVAILABLE_PREFIXES: [&str; 9] =
    ["08", "53", "57P", "57014", "55P03", "40", "25006", "3D000", "28"];

/// Why a use case did not succeed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The wording is the original's: clients read it.
    #[error("Order with id {0} could not be found")]
    OrderNotFound(i64),
    /// The wording is the original's: clients read it.
    #[error("Order does not contain line with id {0}")]
    LineNotFound(i64),
    /// The database is away, starting, overloaded or too slow; nothing was committed unless the connection broke in the
    /// commit itself, which nobody can tell.
    #[error("the database cannot be used now")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused what we believed to be right.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
    /// An event could not be written as JSON.
    #[error("an event could not be written as JSON")]
    Event(#[from] serde_json::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) { Failure::Unavailable(error) } else { Failure::Database(error) }
    }
}

/// Whether the same statement may succeed a little later.
pub(crate) fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // A connection that ends in the middle of a message.
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(database) => database
            .code()
            .is_some_and(|code| UNAVAILABLE_PREFIXES.iter().any(|prefix| code.starts_with(prefix))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_may_be_tried_again_and_a_missing_row_may_not() {
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(Failure::from(sqlx::Error::Io(lost)), Failure::Unavailable(_)));
        assert!(matches!(Failure::from(sqlx::Error::PoolTimedOut), Failure::Unavailable(_)));
        assert!(matches!(Failure::from(sqlx::Error::RowNotFound), Failure::Database(_)));
    }
}
