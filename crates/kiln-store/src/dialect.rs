//! What SQLite and PostgreSQL spell or do differently. Nothing else knows which
//! of them it talks to.

use sqlx::error::{DatabaseError, ErrorKind};

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// The number of the lock that makes PostgreSQL's writers one after the other:
/// `kiln` in ASCII.
const WRITER: &str = "SELECT pg_advisory_xact_lock(1802071150)";

/// One text for both engines that reads `$1`, a JSON array, as rows: where it says `EACH`
/// are its members, as `e.value`. What belongs together is so written by one statement,
/// however much there is of it.
///
/// PostgreSQL takes a condition of this form for one that hardly any row meets, whatever it
/// says, and so expects one member instead of a hundred: see [`Engine::settings`].
macro_rules! each {
    ($engine:expr, $($text:tt)+) => {
        match $engine {
            $crate::dialect::Engine::Sqlite =>
                $crate::dialect::each!(@ "json_each($1) AS e", $($text)+),
            $crate::dialect::Engine::Postgres => $crate::dialect::each!(
                @ "(SELECT value FROM jsonb_array_elements(CAST($1 AS jsonb))
                    WHERE (value = value) IS TRUE) AS e", $($text)+),
        }
    };
    (@ $rows:literal, $head:literal EACH $tail:literal) => {
        concat!($head, " ", $rows, " ", $tail)
    };
    (@ $rows:literal, $head:literal EACH) => {
        concat!($head, " ", $rows)
    };
}
pub(crate) use each;

impl Engine {
    pub(crate) fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// What each new connection is told.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            // An acknowledged commit outlives a power cut only with FULL.
            Self::Sqlite => {
                "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                 PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            }
            // A server that freezes, or is cut off, in the middle of a transaction must
            // not stop the others for long.
            //
            // What it knows of a table's size is a minute old, and a plan stays that was made
            // when the table was small: then it reads the whole queue for one job. But what is
            // asked all the time is for a few rows by their keys.
            Self::Postgres => {
                "SET enable_seqscan = off; SET enable_mergejoin = off; SET jit = off; \
                 SET lock_timeout = '20s'; SET statement_timeout = '60s'; \
                 SET idle_in_transaction_session_timeout = '15s'; \
                 SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; \
                 SET tcp_keepalives_count = 3; SET tcp_user_timeout = 20000; \
                 SET default_transaction_isolation = 'read committed'; \
                 SET synchronous_commit = on;"
            }
        }
    }

    /// What lets the statements of one transaction take as long as they do: an index of a
    /// large table.
    pub(crate) fn patience(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET LOCAL statement_timeout = 0"),
        }
    }

    /// How a transaction that writes begins.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// What makes this transaction the only one that writes, where beginning it
    /// did not do that.
    pub(crate) fn only_writer(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(WRITER),
        }
    }

    /// At the end of a SELECT: until this transaction has ended nobody has the row [alone],
    /// though others keep it as well, and change it.
    ///
    /// [alone]: Self::alone
    pub(crate) fn keep(self) -> &'static str {
        match self {
            // It has one writer.
            Self::Sqlite => "",
            Self::Postgres => " FOR KEY SHARE",
        }
    }

    /// At the end of a SELECT: nobody else even locks the row until this transaction has ended.
    pub(crate) fn alone(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// The database's clock, in microseconds.
    pub(crate) fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT CAST(ROUND(unixepoch('subsec') * 1000) AS INTEGER) * 1000",
            Self::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
            }
        }
    }

    /// Statements that leave out a million of each growing number: more than a farm
    /// gives between two copies of its database, and few enough that numbers stay in the
    /// API's 32 bits.
    pub(crate) fn leave_numbers_out(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "UPDATE sqlite_sequence SET seq = seq + 1000000",
                "INSERT INTO sqlite_sequence (name, seq)
                 SELECT name, 1000000 FROM sqlite_master
                 WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'
                   AND name NOT IN (SELECT name FROM sqlite_sequence)",
            ],
            Self::Postgres => &["SELECT setval(numbers, nextval(numbers) + 1000000) FROM
                 (SELECT CAST(pg_get_serial_sequence(quote_ident(table_name), column_name) AS regclass)
                      AS numbers
                  FROM information_schema.columns
                  WHERE table_schema = current_schema() AND is_identity = 'YES') identities"],
        }
    }

    /// A growing number that is never given twice, in a migration's text.
    pub(crate) fn identity(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Self::Postgres => "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        }
    }

    /// Whether there is any use in doing the transaction again: it fell victim to
    /// another one and was undone.
    pub(crate) fn again(error: &dyn DatabaseError) -> bool {
        // Serialization failure, deadlock; SQLITE_BUSY_SNAPSHOT.
        matches!(error.code().as_deref(), Some("40001" | "40P01" | "517"))
    }

    /// Whether there is this table, as a number.
    pub(crate) fn has_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => "SELECT CAST(COUNT(to_regclass($1)) AS BIGINT)",
        }
    }

    /// Whether a database that can't be opened for this reason may come by itself.
    pub(crate) fn may_come(self, error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => self == Self::Postgres,
            // It starts, stops or recovers; it has no room for another connection.
            sqlx::Error::Database(error) => matches!(
                error.code().as_deref(),
                Some("57P01" | "57P02" | "57P03" | "53300")
            ),
            _ => false,
        }
    }

    /// Whether the connection has ended: it broke, or the database ended it.
    pub(crate) fn ended(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => {
                matches!(error.code().as_deref(), Some("57P01" | "57P02"))
            }
            _ => false,
        }
    }

    /// Whether the role may not do that.
    pub(crate) fn forbidden(error: &sqlx::Error) -> bool {
        let error = error.as_database_error();
        error.is_some_and(|error| error.code().as_deref() == Some("42501"))
    }

    /// Whether what was to be written is to blame, so that others' need not fail with it.
    pub(crate) fn unfit(error: &dyn DatabaseError) -> bool {
        let data = error.code().is_some_and(|code| code.starts_with("22"));
        data || error.kind() != ErrorKind::Other
    }

    /// Whether a text can't be stored: PostgreSQL has no NUL in texts.
    pub(crate) fn no_text(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("22021" | "22P05"))
    }
}
