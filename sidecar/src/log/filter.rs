//! Which rows of the log are asked for: conditions on the view, and how clients, paths and statuses are written.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use sidecar_decide::Verdict;

use super::encode::micros;
use super::record::{Kind, Network};

/// Which rows; what is absent restricts nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not before.
    pub since: Option<SystemTime>,
    /// Before.
    pub until: Option<SystemTime>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this decision.
    pub verdict: Option<Verdict>,
    /// With this reason's code.
    pub reason: Option<String>,
    /// Refused by this limit.
    pub limiter: Option<String>,
    /// Of this identity.
    pub identity: Option<String>,
    /// At this listener.
    pub listener: Option<String>,
    /// Of this route, `namespace/name`.
    pub route: Option<String>,
    /// Of this host, port included where there was one.
    pub host: Option<String>,
    /// With a path that begins so.
    pub path: Option<String>,
    /// With a status from the first to the second.
    pub status: Option<(u16, u16)>,
    /// From this address, or a network that holds it.
    pub client: Option<IpAddr>,
    /// With this certificate.
    pub fingerprint: Option<String>,
    /// With a certificate of this serial number.
    pub serial: Option<String>,
    /// With this id of a request.
    pub request_id: Option<String>,
    /// Of this trace.
    pub trace_id: Option<String>,
    /// About this.
    pub message_type: Option<String>,
    /// With this id, a UUID.
    pub id: Option<String>,
    /// The newest so many.
    pub limit: u32,
}

/// A value of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Integer(i64),
    Text(String),
}

impl Filter {
    /// The conditions as SQL for SQLite, joined by AND, and their values in order.
    pub(super) fn conditions(&self) -> (String, Vec<Bound>) {
        let conditions = self.gather("at >= ?", "at < ?", "id = ?");
        (conditions.sql.join(" AND "), conditions.values)
    }

    /// The same for PostgreSQL, which takes all values as texts and has places with numbers for them.
    pub(super) fn remote_conditions(&self) -> (String, Vec<String>) {
        let conditions = self.gather(
            "time >= timestamptz 'epoch' + ? * interval '1 microsecond'",
            "time < timestamptz 'epoch' + ? * interval '1 microsecond'",
            "id = ?::uuid",
        );
        let mut sql = "true".to_owned();
        let mut values = Vec::new();
        // Nothing else in these has a question mark.
        for part in conditions.sql.iter().skip(1).map(|condition| format!(" AND {condition}")) {
            let mut pieces = part.split('?');
            sql.extend(pieces.next());
            for piece in pieces {
                let kind = match conditions.values.get(values.len()) {
                    Some(Bound::Integer(_)) => "::bigint",
                    _ => "",
                };
                values.push(conditions.values.get(values.len()).map_or_else(String::new, Bound::text));
                sql.push_str(&format!("${}{kind}{piece}", values.len()));
            }
        }
        (sql, values)
    }

    /// Whether nothing but these columns is asked about.
    pub(super) fn is_of(&self, columns: &[&str]) -> bool {
        let (conditions, _) = self.remote_conditions();
        conditions.split(" AND ").skip(1).all(|one| one.split(' ').next().is_some_and(|name| columns.contains(&name)))
    }

    fn gather(&self, since: &'static str, until: &'static str, id: &'static str) -> Conditions {
        let mut conditions = Conditions { sql: vec!["1"], values: Vec::new() };
        let text = |text: &String| vec![Bound::Text(text.clone())];
        conditions.add(since, self.since.map(|time| vec![Bound::Integer(micros(time))]));
        conditions.add(until, self.until.map(|time| vec![Bound::Integer(micros(time))]));
        conditions.add("kind = ?", self.kind.map(|kind| vec![Bound::Text(kind.name().to_owned())]));
        conditions.add("verdict = ?", self.verdict.map(|verdict| vec![Bound::Text(verdict.name().to_owned())]));
        conditions.add("reason = ?", self.reason.as_ref().map(text));
        conditions.add("limiter = ?", self.limiter.as_ref().map(text));
        conditions.add("identity = ?", self.identity.as_ref().map(text));
        conditions.add("listener = ?", self.listener.as_ref().map(text));
        conditions.add("route = ?", self.route.as_ref().map(text));
        conditions.add("host = ?", self.host.as_ref().map(text));
        let twice = |text: &String| vec![Bound::Text(text.clone()), Bound::Text(text.clone())];
        // Without LIKE, in which clients' own characters would mean something.
        conditions.add("substr(path, 1, length(?)) = ?", self.path.as_ref().map(twice));
        let range = |(from, to): (u16, u16)| vec![Bound::Integer(from.into()), Bound::Integer(to.into())];
        conditions.add("status BETWEEN ? AND ?", self.status.map(range));
        conditions.add("(rtrim(client_addr, '0123456789') = ? OR client_addr = ?)", self.client.map(client));
        conditions.add("fingerprint = ?", self.fingerprint.as_ref().map(text));
        conditions.add("serial = ?", self.serial.as_ref().map(text));
        conditions.add("request_id = ?", self.request_id.as_ref().map(text));
        conditions.add("trace_id = ?", self.trace_id.as_ref().map(text));
        conditions.add("message_type = ?", self.message_type.as_ref().map(text));
        conditions.add(id, self.id.as_ref().map(text));
        conditions
    }
}

impl Bound {
    fn text(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

struct Conditions {
    sql: Vec<&'static str>,
    values: Vec<Bound>,
}

impl Conditions {
    fn add(&mut self, sql: &'static str, values: Option<Vec<Bound>>) {
        if let Some(values) = values {
            self.sql.push(sql);
            self.values.extend(values);
        }
    }
}

/// As rows have it: the address up to its port, or the network of several.
fn client(address: IpAddr) -> Vec<Bound> {
    let with_port = SocketAddr::new(address, 0).to_string();
    let up_to_port = with_port.trim_end_matches('0').to_owned();
    vec![Bound::Text(up_to_port), Bound::Text(Network::of(address).to_string())]
}

/// Statuses as one writes them: `404`, `5xx`, `400-499`.
///
/// # Errors
/// What to write instead.
pub fn statuses(text: &str) -> Result<(u16, u16), String> {
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|status| (100..1000).contains(status));
    let range = match (text.split_once('-'), text.strip_suffix("xx")) {
        (Some((from, to)), _) => number(from).zip(number(to)).filter(|(from, to)| from <= to),
        (None, Some(class)) => {
            let class = class.parse::<u16>().ok().filter(|class| (1..10).contains(class));
            class.map(|class| (100 * class, 100 * class + 99))
        }
        (None, None) => number(text).map(|status| (status, status)),
    };
    range.ok_or_else(|| "write a status such as `404`, a class such as `5xx`, or a range such as `400-499`".to_owned())
}

/// A certificate's fingerprint as rows have it, whichever way a program wrote it: with colons, in capitals.
#[must_use]
pub fn fingerprint(text: &str) -> String {
    let hex: String = text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|digit| *digit != ':').collect();
    format!("sha256:{}", hex.to_ascii_lowercase())
}

/// A trace's id as rows have it; of a whole `traceparent` too (W3C Trace Context §3.2).
#[must_use]
pub fn trace_id(text: &str) -> String {
    let id = text.split('-').nth(1).unwrap_or(text);
    id.to_ascii_lowercase()
}

/// A serial number as rows have it: lower-case pairs with colons.
#[must_use]
pub fn serial(text: &str) -> String {
    let digits: String = text.chars().filter(|digit| *digit != ':').collect::<String>().to_ascii_lowercase();
    let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let mut pairs = String::with_capacity(padded.len() * 3 / 2);
    for (index, digit) in padded.chars().enumerate() {
        if index > 0 && index % 2 == 0 {
            pairs.push(':');
        }
        pairs.push(digit);
    }
    pairs
}
