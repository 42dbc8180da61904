//! What to do when the database says no: one pure decision, made in one place.

use sqlx::mysql::MySqlDatabaseError;

/// The three answers to a failed transaction. A failure is poison only when the data is to blame: then no later
/// attempt can succeed. Everything else is an outage, and an outage never costs a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Another transaction won; this one was rolled back whole and may simply be run again.
    RetryAtOnce,
    /// The database is away, read only, overloaded or not permitted, or a unique key that an operator added is in the way:
    /// wait, then try again, for as long as it takes.
    RetryLater,
    /// The database will never take this value.
    DeadLetter,
}

/// In the log, of a database that gives no answer.
pub(crate) const AWAY: &str = "MySQL is away";

/// How the log begins to tell of the error: a database that says no is not away.
pub(crate) const fn headline(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Database(_) => "MySQL does not take the event",
        _ => AWAY,
    }
}

/// The answer to an error of a transaction that handles one message.
pub(crate) fn answer(error: &sqlx::Error) -> Answer {
    match error {
        // sqlx could not even write the value into the protocol.
        sqlx::Error::Encode(_) => Answer::DeadLetter,
        sqlx::Error::Database(database) => {
            match database.try_downcast_ref::<MySqlDatabaseError>() {
                Some(error) => answer_to_code(error.number(), error.code().unwrap_or_default()),
                None => Answer::RetryLater,
            }
        }
        _ => Answer::RetryLater,
    }
}

/// By MySQL's error number (MariaDB shares these), then by SQLSTATE: class 22 is "data exception".
/// <https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html>
fn answer_to_code(number: u16, sql_state: &str) -> Answer {
    match number {
        // 1213 deadlock; 1020 the row changed since it was read (MariaDB's innodb_snapshot_isolation).
        1213 | 1020 => Answer::RetryAtOnce,
        // 1048 null in a not-null column, 1366 incorrect value for the column, 3819 and 4025 check constraint violated
        // (MySQL, MariaDB): the data is to blame, but SQLSTATE does not say class 22.
        1048 | 1366 | 3819 | 4025 => Answer::DeadLetter,
        _ if sql_state.starts_with("22") => Answer::DeadLetter,
        _ => Answer::RetryLater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_data_makes_a_message_poison() {
        for (number, sql_state, expected, what) in [
            (1213, "40001", Answer::RetryAtOnce, "deadlock"),
            (1020, "HY000", Answer::RetryAtOnce, "record has changed since last read"),
            (1406, "22001", Answer::DeadLetter, "data too long for column"),
            (1264, "22003", Answer::DeadLetter, "out of range value"),
            (1292, "22007", Answer::DeadLetter, "incorrect datetime value"),
            (1366, "HY000", Answer::DeadLetter, "incorrect string value"),
            (1048, "23000", Answer::DeadLetter, "column cannot be null"),
            (3819, "HY000", Answer::DeadLetter, "check constraint, MySQL"),
            (4025, "23000", Answer::DeadLetter, "check constraint, MariaDB"),
            (1205, "HY000", Answer::RetryLater, "lock wait timeout"),
            (1062, "23000", Answer::RetryLater, "duplicate of a key that an operator can repair"),
            (1290, "HY000", Answer::RetryLater, "read only"),
            (1836, "HY000", Answer::RetryLater, "running in read-only mode"),
            (1040, "08004", Answer::RetryLater, "too many connections"),
            (
                1045,
                "28000",
                Answer::RetryLater,
                "access denied: an operator can repair it, the message is fine",
            ),
            (1053, "08S01", Answer::RetryLater, "server shutdown in progress"),
            (1146, "42S02", Answer::RetryLater, "no such table"),
            (1021, "HY000", Answer::RetryLater, "disk full"),
        ] {
            assert_eq!(answer_to_code(number, sql_state), expected, "{number}: {what}");
        }
    }

    #[test]
    fn a_broken_connection_is_an_outage_and_an_unwritable_value_is_poison() {
        let cut = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(answer(&cut), Answer::RetryLater);
        assert_eq!(answer(&sqlx::Error::PoolTimedOut), Answer::RetryLater);
        assert_eq!(answer(&sqlx::Error::Encode("year".into())), Answer::DeadLetter);
    }
}
