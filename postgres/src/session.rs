//! One connection, with a deadline on everything, and its failures in the words of metrics.

use std::error::{self, Error as _};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::columns::Values;
use crate::target::Target;
use crate::tls::Verified;

/// PostgreSQL's port, where a URL names none.
const DEFAULT_PORT: u16 = 5432;

/// Addresses of one name that are tried: more would have no time left for each.
const ADDRESSES_MAX: usize = 8;

/// Time for a last word.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// What kind of failure it is. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// What is on this side is not there or cannot be read: URL, password, authorities, the log itself.
    Local,
    /// Nobody is there, or the connection broke.
    Connect,
    /// It took too long.
    Timeout,
    /// The server is not the one, or speaks no TLS.
    Tls,
    /// It does not take the user or the password.
    Password,
    /// A right is missing.
    Permission,
    /// It does not take writes: a standby, or one that is told so.
    ReadOnly,
    /// It has no room, memory or connections left, or is starting or stopping.
    Full,
    /// The schema is not there, or is one that is not written.
    Schema,
    /// It does not take what a row says.
    Rejected,
    /// Anything else.
    Server,
}

impl Failure {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Local,
        Self::Connect,
        Self::Timeout,
        Self::Tls,
        Self::Password,
        Self::Permission,
        Self::ReadOnly,
        Self::Full,
        Self::Schema,
        Self::Rejected,
        Self::Server,
    ];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Password => "password",
            Self::Permission => "permission",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Schema => "schema",
            Self::Rejected => "rejected",
            Self::Server => "server",
        }
    }

    /// By SQLSTATE (PostgreSQL's documentation, appendix A).
    fn of(code: &str) -> Self {
        match code {
            "42501" => Self::Permission,
            "25006" => Self::ReadOnly,
            // Undefined table, column, function, schema, database.
            "42P01" | "42703" | "42883" | "3F000" | "3D000" => Self::Schema,
            // Cancelled by its own timeout, or for a lock that was not to be had in time.
            "57014" | "55P03" => Self::Timeout,
            _ => match code.get(..2) {
                Some("28") => Self::Password,
                Some("53" | "57" | "58") => Self::Full,
                Some("22" | "23") => Self::Rejected,
                Some("08") => Self::Connect,
                _ => Self::Server,
            },
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind it is.
    pub failure: Failure,
    /// What was said.
    pub message: String,
    /// The character of the statement that it is about, from 1.
    position: Option<u32>,
}

impl Error {
    /// One of this kind.
    #[must_use]
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), position: None }
    }

    /// The same, which says where in a statement that began behind so many characters of what was sent.
    pub(crate) fn behind(mut self, characters: usize) -> Self {
        let before = u32::try_from(characters).unwrap_or(u32::MAX);
        if let Some(position) = self.position.and_then(|position| position.checked_sub(before)) {
            self.message.push_str(&format!(", at character {position}"));
        }
        self
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(refusal) = error.as_db_error() {
            let code = refusal.code().code();
            let position = refusal.position().and_then(|position| match position {
                ErrorPosition::Original(position) => Some(*position),
                ErrorPosition::Internal { .. } => None,
            });
            let message = format!("{} (SQLSTATE {code})", refusal.message());
            return Self { failure: Failure::of(code), message, position };
        }
        let message = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let io = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        // The library tells the rest by words alone; those that begin so are about what is named there.
        let failure = match io {
            Some(io::ErrorKind::InvalidData) => Failure::Tls,
            _ if message.starts_with("error performing TLS handshake") => Failure::Tls,
            _ if message.contains("password missing") || message.starts_with("authentication error") => {
                Failure::Password
            }
            _ if message.contains("does not allow writes") || message.contains("not read write") => Failure::ReadOnly,
            Some(io::ErrorKind::TimedOut) => Failure::Timeout,
            Some(_) => Failure::Connect,
            _ if error.is_closed() => Failure::Connect,
            _ => Failure::Server,
        };
        Self::new(failure, message)
    }
}

/// An open connection, of a tokio runtime. After an error it is to be dropped, unless [`Session::is_usable`].
#[derive(Debug)]
pub struct Session {
    client: Option<Client>,
    driver: JoinHandle<()>,
    pub(crate) timeout: Duration,
    is_settled: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects to the first host that takes writes, each within `patience`, of which each address of its name has its
    /// share: one that does not answer keeps no other from its turn. `authorities` is PEM of whoever may vouch for a server that is to be verified.
    ///
    /// # Errors
    /// Why the last of them cannot be had.
    pub async fn connect(target: &Target, authorities: Option<&[u8]>, patience: Duration) -> Result<Self, Error> {
        let none = || Error::new(Failure::Local, "there is no authority that could vouch for the server");
        let tls = match target.is_verified() {
            true => Some(Verified::by(authorities.ok_or_else(none)?)),
            false => None,
        };
        let tls = tls.transpose().map_err(|message| Error::new(Failure::Local, message))?;
        let mut connected = Err(Error::new(Failure::Local, "the URL names no host"));
        for host in target.hosts() {
            let addresses = addresses(host, patience).await;
            let patience_each = patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            for config in addresses {
                connected = Self::connect_to(&config, tls.clone(), patience_each).await;
                if let Ok(mut session) = connected {
                    session.timeout = patience;
                    return Ok(session);
                }
            }
        }
        connected
    }

    async fn connect_to(config: &Config, tls: Option<Verified>, patience: Duration) -> Result<Self, Error> {
        let (client, driver) = if let Some(tls) = tls {
            let (client, connection) = in_time(patience, config.connect(tls)).await?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (client, connection) = in_time(patience, config.connect(NoTls)).await?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { client: Some(client), driver, timeout: patience, is_settled: true })
    }

    /// Statements without values, in one transaction unless they say otherwise; the first value of the last row.
    ///
    /// # Errors
    /// What the server said, or why it said nothing in time.
    pub async fn query(&mut self, sql: &str) -> Result<Option<String>, Error> {
        let mut first = None;
        let mut take = |message| {
            if let SimpleQueryMessage::Row(row) = message {
                first = row.try_get(0).ok().flatten().map(str::to_owned);
            }
        };
        self.messages(sql, &mut take).await?;
        Ok(first)
    }

    /// Gives away what the server says, as it says it.
    pub(crate) async fn messages(&mut self, sql: &str, each: &mut dyn FnMut(SimpleQueryMessage)) -> Result<(), Error> {
        self.is_settled = false;
        let answered = hear(self.client()?, self.timeout, sql, each).await;
        self.settle(&answered);
        answered
    }

    /// One statement with texts in the places of its values; how many rows it was about.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&mut self, sql: &str, texts: &[&str]) -> Result<u64, Error> {
        self.is_settled = false;
        let values: Vec<_> = texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let answered = in_time(self.timeout, self.client()?.execute_typed(sql, &values)).await;
        self.settle(&answered);
        answered
    }

    /// One statement with values as PostgreSQL writes them in binary; `None` is NULL. How many rows it was about.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute_binary(&mut self, sql: &str, values: &[(Values, Option<&[u8]>)]) -> Result<u64, Error> {
        self.is_settled = false;
        let values: Vec<_> = values.iter().map(|(values, bytes)| (Binary(*bytes), values.of())).collect();
        let values: Vec<_> =
            values.iter().map(|(bytes, values)| (bytes as &(dyn ToSql + Sync), values.clone())).collect();
        let answered = in_time(self.timeout, self.client()?.execute_typed(sql, &values)).await;
        self.settle(&answered);
        answered
    }

    /// All of `rows`, which are what `sql`, a COPY FROM STDIN, reads, or none; how many they are.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn copy(&mut self, sql: &str, rows: Bytes) -> Result<u64, Error> {
        self.is_settled = false;
        let mut is_begun = false;
        let answered = copied(self.client()?, self.timeout, sql, rows, &mut is_begun).await;
        // Where the server refuses to begin, the library says once too often that it ends, and takes the answer to that for
        // the next one's.
        if answered.is_ok() || is_begun {
            self.settle(&answered);
        }
        if answered.is_err() && self.is_usable() {
            self.query("ROLLBACK").await?;
        }
        answered
    }

    /// Whether something else can be asked: what was refused leaves the connection as it was.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_settled && self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Says goodbye, which the server finds out otherwise.
    pub async fn close(mut self) {
        // The library says it when its client is gone.
        if let Some(client) = self.client.take() {
            drop(client);
            let _not_needed = timeout(GOODBYE, &mut self.driver).await;
        }
    }

    fn client(&self) -> Result<&Client, Error> {
        self.client.as_ref().ok_or_else(|| Error::new(Failure::Connect, "the connection is closed"))
    }

    fn settle<T>(&mut self, answered: &Result<T, Error>) {
        let lost = [Failure::Connect, Failure::Timeout];
        self.is_settled = answered.as_ref().err().is_none_or(|error| !lost.contains(&error.failure));
    }
}

/// In a transaction: a pool between us and the server may give what is prepared, and what is done with it, to two servers
/// otherwise.
async fn copied(
    client: &Client,
    patience: Duration,
    sql: &str,
    rows: Bytes,
    is_begun: &mut bool,
) -> Result<u64, Error> {
    in_time(patience, client.batch_execute("BEGIN")).await?;
    let mut sink = pin!(in_time(patience, client.copy_in(sql)).await?);
    *is_begun = true;
    let copied = in_time(patience, async {
        sink.send(rows).await?;
        sink.as_mut().finish().await
    });
    let count = copied.await?;
    in_time(patience, client.batch_execute("COMMIT")).await?;
    Ok(count)
}

/// Bytes that are a value already.
#[derive(Debug)]
struct Binary<'a>(Option<&'a [u8]>);

impl ToSql for Binary<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        let Some(bytes) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Values {
    fn of(self) -> Type {
        match self {
            Self::Uuid => Type::UUID,
            Self::Time => Type::TIMESTAMPTZ,
            Self::Text => Type::TEXT,
            Self::Bytes => Type::BYTEA,
            Self::Flag => Type::BOOL,
            Self::Integer => Type::INT4,
            Self::Large => Type::INT8,
        }
    }
}

async fn hear(
    client: &Client,
    patience: Duration,
    sql: &str,
    each: &mut dyn FnMut(SimpleQueryMessage),
) -> Result<(), Error> {
    let mut messages = pin!(in_time(patience, client.simple_query_raw(sql)).await?);
    while let Some(message) = in_time(patience, messages.try_next()).await? {
        each(message);
    }
    Ok(())
}

/// A host whose name has several addresses, once for each of them: the first would have all of the time otherwise.
async fn addresses(host: Config, patience: Duration) -> Vec<Config> {
    let name = match (host.get_hosts(), host.get_hostaddrs()) {
        ([Host::Tcp(name)], []) => name.clone(),
        _ => return vec![host],
    };
    let port = host.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    let found: Vec<_> = match timeout(patience, lookup_host((name, port))).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
        // That it cannot be found is told where it is connected to.
        _ => return vec![host],
    };
    let one = |address: SocketAddr| {
        let mut one = host.clone();
        one.hostaddr(address.ip());
        one
    };
    found.into_iter().map(one).collect()
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match timeout(patience, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::new(Failure::Timeout, format!("no answer within {} s", patience.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn each_address_of_a_name_is_tried_by_itself() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let found = |url: &str| {
            let host = Target::parse(url).expect("a URL").hosts().remove(0);
            (runtime.block_on(addresses(host.clone(), GOODBYE)), host)
        };
        let (each, host) = found("postgres://a@localhost:5/log");
        assert!(!each.is_empty());
        for one in each {
            let [address] = one.get_hostaddrs() else { panic!("one address of {one:?}") };
            assert!(address.is_loopback());
            let mut expected = host.clone();
            assert_eq!(one, *expected.hostaddr(*address), "the certificate is for the name");
        }
        let address = IpAddr::from([192, 0, 2, 1]);
        for url in [
            format!("postgres://a@db.example/log?hostaddr={address}"),
            "postgres://a@%2Frun%2Fpg/log".to_owned(),
            "postgres://a@no-such-name.invalid/log".to_owned(),
        ] {
            let (each, host) = found(&url);
            assert_eq!(each, [host], "{url}");
        }
    }
}
