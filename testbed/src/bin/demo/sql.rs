//! `cargo demo sql`: a query and its table, for those without psql and mysql.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use sqlx::{
    AssertSqlSafe, Column as _, ColumnIndex, Connection as _, Database as SqlDatabase, Decode,
    MySqlConnection, PgConnection, Row, Type,
};

use crate::cli::{Cli, Database};

pub(crate) async fn print(cli: &Cli, database: Database, query: &str) -> Result<bool> {
    let missing = |port| format!("no database on port {port}: does `cargo demo` run?");
    // The simple protocol: the server sends every value as text.
    let sql = sqlx::raw_sql(AssertSqlSafe(query.to_owned()));
    let table = match database {
        Database::OrderDb => {
            let port = cli.postgres_port;
            let url = format!("postgres://postgresuser:postgrespw@127.0.0.1:{port}/orderdb");
            let connected = PgConnection::connect(&url).await;
            let mut connection = connected.with_context(|| missing(port))?;
            table(&sql.fetch_all(&mut connection).await?)
        }
        Database::ShipmentDb => {
            let port = cli.mysql_port;
            let url = format!("mysql://mysqluser:mysqlpw@127.0.0.1:{port}/inventory");
            let connected = MySqlConnection::connect(&url).await;
            let mut connection = connected.with_context(|| missing(port))?;
            table(&sql.fetch_all(&mut connection).await?)
        }
    };
    // A reader that has seen enough (head) is no error.
    let _ = std::io::stdout().write_all(layout(&table).as_bytes());
    Ok(true)
}

/// The names of the columns, then the rows.
fn table<R>(rows: &[R]) -> Vec<Vec<String>>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> &'r str: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: SqlDatabase,
{
    let Some(first) = rows.first() else { return Vec::new() };
    let names = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let cells = |row: &R| {
        let cell = |index: usize| match row.try_get_unchecked::<Option<&str>, _>(index) {
            Ok(Some(text)) => text.to_owned(),
            Ok(None) => "null".to_owned(),
            // Bytes, for instance the event id in MySQL.
            Err(_) => hexadecimal(row.try_get_unchecked::<&[u8], _>(index).unwrap_or_default()),
        };
        (0..row.columns().len()).map(cell).collect()
    };
    std::iter::once(names).chain(rows.iter().map(cells)).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn layout(table: &[Vec<String>]) -> String {
    let Some(names) = table.first() else { return "no rows\n".to_owned() };
    let width = |column: usize| {
        table.iter().map(|row| row.get(column).map_or(0, |c| c.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!(" {}\n", cells.join(" | ").trim_end());
        if index == 0 {
            let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text += &format!("-{}-\n", lines.join("-+-"));
        }
    }
    text + &format!("({} rows)\n", table.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let table = [["id", "item"], ["1", "Bücher"], ["22", "x"]];
        let table: Vec<Vec<String>> = table.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        let expected = " id | item\n----+--------\n 1  | Bücher\n 22 | x\n(2 rows)\n";
        assert_eq!(layout(&table), expected);
        assert_eq!(layout(&[]), "no rows\n");
    }

    #[test]
    fn bytes_are_shown_in_hexadecimal() {
        assert_eq!(hexadecimal(&[1, 255]), "0x01ff");
    }
}
