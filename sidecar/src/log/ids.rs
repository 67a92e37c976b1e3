//! Rows that many decisions share: which id stands for a scope, a peer or a word, and when nobody refers to it any more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use http::Method;
use sidecar_config::settings::Pod;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::handle::{Database, HandleError};
use super::record::{Interned, Peer, PeerFacts, Record, Scope, ScopeFacts, clipped};

/// Scopes and peers whose ids are kept in memory, each; at most about 2 MiB of certificate facts. Beyond it they are
/// looked up again.
const CACHED: usize = 2048;

/// Words the store keeps: the closed sets and some hundred hosts. Beyond it hosts are stored in their rows.
const WORDS: usize = 1024;

/// The longest text that becomes a word: a name of the DNS with its port.
const WORD_BYTES: usize = 260;

/// Scopes and peers that were used last, each, found by where they lie in memory: without a hash of them, nor a look at
/// all they say, which connections of one client would need, each of which has its own.
const RECENT: usize = 64;

/// How far a row's `last` may lag behind its use: one update in so many rows keeps it known, without a scan, which
/// scopes and peers no decision refers to.
const TOUCH_ROWS: i64 = 4096;

/// The ids one decision refers to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowIds {
    pub(super) scope: Option<i64>,
    pub(super) peer: Option<i64>,
    pub(super) reason: Option<i64>,
    pub(super) limiter: Option<i64>,
    pub(super) sni: Option<i64>,
    pub(super) method: Option<i64>,
    pub(super) host: Option<i64>,
    pub(super) message_type: Option<i64>,
}

/// Knows the ids of one open store. To be dropped with it, also when a transaction fails: what was added in it is gone.
#[derive(Debug)]
pub(super) struct Ids {
    pod: Pod,
    scopes: Table<ScopeFacts>,
    /// Of refusals of strangers, which are pruned by themselves.
    refusal_scopes: Table<ScopeFacts>,
    peers: Table<PeerFacts>,
    words: HashMap<Box<str>, i64>,
}

impl Ids {
    pub(super) async fn load(connection: &mut SqliteConnection, pod: Pod) -> sqlx::Result<Self> {
        let words: Vec<(i64, String)> = sqlx::query_as("SELECT id, text FROM word").fetch_all(connection).await?;
        Ok(Self {
            pod,
            scopes: Table::new("scope", &SCOPE_COLUMNS),
            refusal_scopes: Table::new("refusal_scope", &SCOPE_COLUMNS),
            peers: Table::new("peer", &PEER_COLUMNS),
            words: words.into_iter().map(|(id, text)| (text.into_boxed_str(), id)).collect(),
        })
    }

    /// The ids of every record of `batch`, adding rows for what is new; `end` is the `seq` of its last record.
    pub(super) fn resolve(
        &mut self,
        database: Database<'_>,
        batch: &[Box<Record>],
        end: i64,
    ) -> Result<Vec<RowIds>, HandleError> {
        let mut rows = Vec::with_capacity(batch.len());
        let mut before = None;
        for record in batch {
            let ids = match before.and_then(|before| self.resolve_like(record, before, end)) {
                Some(ids) => ids,
                None => self.resolve_one(database, record, end)?,
            };
            rows.push(ids);
            before = Some((&**record, ids));
        }
        self.scopes.touch(database, end)?;
        self.refusal_scopes.touch(database, end)?;
        self.peers.touch(database, end)?;
        Ok(rows)
    }

    /// The ids of a record whose words are those of the one before, as most are; `None` where that takes a look.
    fn resolve_like(&self, record: &Record, (before, ids): (&Record, RowIds), end: i64) -> Option<RowIds> {
        let is_like = record.reason == before.reason
            && record.limiter == before.limiter
            && record.method == before.method
            && record.sni == before.sni
            && record.host == before.host
            && record.message_type == before.message_type
            && names_are_ours(record) == names_are_ours(before)
            && !record.is_strangers()
            && !before.is_strangers();
        if !is_like {
            return None;
        }
        let scope = record.scope.as_ref().map_or(Some(None), |scope| self.scopes.recent(scope, end).map(Some))?;
        let peer = record.peer.as_ref().map_or(Some(None), |peer| self.peers.recent(peer, end).map(Some))?;
        Some(RowIds { scope, peer, ..ids })
    }

    /// Nothing but words is there any more.
    pub(super) fn forget_all(&mut self) {
        self.scopes.forget_all();
        self.refusal_scopes.forget_all();
        self.peers.forget_all();
    }

    /// Deletes what no decision from `first` on refers to.
    pub(super) async fn forget_before(&mut self, connection: &mut SqliteConnection, first: i64) -> sqlx::Result<()> {
        self.scopes.forget_before(connection, first).await?;
        self.peers.forget_before(connection, first).await
    }

    /// Deletes what no refusal from `first` on refers to.
    pub(super) async fn forget_refusals_before(
        &mut self,
        connection: &mut SqliteConnection,
        first: i64,
    ) -> sqlx::Result<()> {
        self.refusal_scopes.forget_before(connection, first).await
    }

    fn resolve_one(&mut self, database: Database<'_>, record: &Record, end: i64) -> Result<RowIds, HandleError> {
        let mut ids = RowIds::default();
        let is_strangers = record.is_strangers();
        if let Some(scope) = &record.scope {
            let scopes = if is_strangers { &mut self.refusal_scopes } else { &mut self.scopes };
            ids.scope = Some(match scopes.cached(scope, end) {
                Some(id) => id,
                None => scopes.find_or_add(database, scope, &scope_values(&self.pod, scope), end)?,
            });
        }
        // What a stranger shows is in its row, and goes with it.
        if let Some(peer) = record.peer.as_ref().filter(|_| !is_strangers) {
            ids.peer = Some(match self.peers.cached(peer, end) {
                Some(id) => id,
                None => self.peers.find_or_add(database, peer, &peer_values(peer), end)?,
            });
        }
        if let Some(reason) = record.reason {
            ids.reason = self.word(database, reason.code(), usize::MAX)?;
        }
        if let Some(limiter) = record.limiter {
            ids.limiter = self.word(database, limiter.name(), usize::MAX)?;
        }
        if let Some(method) = record.method.as_ref().filter(|method| is_standard(method)) {
            ids.method = self.word(database, method.as_str(), usize::MAX)?;
        }
        if let Some(message) = &record.message_type {
            ids.message_type = self.word(database, message.name(), WORDS)?;
        }
        if names_are_ours(record) {
            if let Some(sni) = record.sni.as_deref() {
                ids.sni = self.word(database, sni, WORDS)?;
            }
            if let Some(host) = record.host.as_deref() {
                ids.host = self.word(database, host, WORDS)?;
            }
        }
        Ok(ids)
    }

    /// The id of `text`; `None` where it is to be stored in its row.
    fn word(&mut self, database: Database<'_>, text: &str, most: usize) -> Result<Option<i64>, HandleError> {
        if let Some(id) = self.words.get(text) {
            return Ok(Some(*id));
        }
        if self.words.len() >= most || text.len() > WORD_BYTES {
            return Ok(None);
        }
        let mut add = database.prepare(c"INSERT INTO word (text) VALUES (?)")?;
        add.bind_text(1, Some(text))?;
        add.step()?;
        let id = database.inserted();
        self.words.insert(text.into(), id);
        Ok(Some(id))
    }
}

/// One shared table and the part of it that is in memory.
#[derive(Debug)]
struct Table<T> {
    name: &'static str,
    find: String,
    add: String,
    cached: HashMap<Arc<Interned<T>>, Cached>,
    /// Of `cached`, what was used last: each in the place of its address.
    recent: Vec<Option<(Arc<Interned<T>>, Cached)>>,
    /// Used, with a `last` that lags too far; written once a batch.
    stale: Vec<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    id: i64,
    last: i64,
}

impl<T: Eq + Hash> Table<T> {
    fn new(name: &'static str, columns: &[&str]) -> Self {
        let same: String = columns.iter().map(|column| format!(" AND {column} IS ?")).collect();
        let places = ", ?".repeat(columns.len());
        Self {
            name,
            find: format!("SELECT id FROM {name} WHERE hash = ?{same}"),
            add: format!("INSERT INTO {name} (hash, last, {}) VALUES (?, ?{places})", columns.join(", ")),
            cached: HashMap::new(),
            recent: vec![None; RECENT],
            stale: Vec::new(),
        }
    }

    fn cached(&mut self, key: &Arc<Interned<T>>, end: i64) -> Option<i64> {
        // Comparing two `Arc`s compares their pointers first, and their contents only where these differ.
        let entry = self.cached.get_mut(key)?;
        if entry.last < end - TOUCH_ROWS {
            entry.last = end;
            self.stale.push(entry.id);
        }
        let entry = *entry;
        self.recent[place(key)] = Some((Arc::clone(key), entry));
        Some(entry.id)
    }

    /// The id of what was used just now, by the same `Arc`; `None` also where it is time to note that it is used.
    fn recent(&self, key: &Arc<Interned<T>>, end: i64) -> Option<i64> {
        let (known, entry) = self.recent[place(key)].as_ref()?;
        (Arc::ptr_eq(known, key) && entry.last >= end - TOUCH_ROWS).then_some(entry.id)
    }

    fn find_or_add(
        &mut self,
        database: Database<'_>,
        key: &Arc<Interned<T>>,
        values: &[Option<&str>],
        end: i64,
    ) -> Result<i64, HandleError> {
        let hash = key.stable_hash().cast_signed();
        let mut find = database.prepare_text(self.find.clone())?;
        find.bind(1, hash)?;
        for (index, value) in (2..).zip(values) {
            find.bind_text(index, value.map(clipped))?;
        }
        let id = if find.step()? {
            // Whatever `last` an earlier run or the full cache left, it is used now.
            let id = find.integer();
            self.stale.push(id);
            id
        } else {
            let mut add = database.prepare_text(self.add.clone())?;
            add.bind(1, hash)?;
            add.bind(2, end)?;
            for (index, value) in (3..).zip(values) {
                add.bind_text(index, value.map(clipped))?;
            }
            add.step()?;
            database.inserted()
        };
        if self.cached.len() >= CACHED {
            self.cached.clear();
        }
        self.cached.insert(Arc::clone(key), Cached { id, last: end });
        Ok(id)
    }

    fn touch(&mut self, database: Database<'_>, end: i64) -> Result<(), HandleError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = self.stale.drain(..).map(|id| id.to_string()).collect();
        let sql = format!("UPDATE {} SET last = ? WHERE id IN ({})", self.name, ids.join(","));
        let mut update = database.prepare_text(sql)?;
        update.bind(1, end)?;
        update.step().map(drop)
    }

    fn forget_all(&mut self) {
        self.cached.clear();
        self.recent.fill(None);
        self.stale.clear();
    }

    async fn forget_before(&mut self, connection: &mut SqliteConnection, first: i64) -> sqlx::Result<()> {
        let unused = first - TOUCH_ROWS;
        let sql = format!("DELETE FROM {} WHERE last < ?", self.name);
        sqlx::query(AssertSqlSafe(sql)).bind(unused).execute(connection).await?;
        self.cached.retain(|_, entry| entry.last >= unused);
        for recent in &mut self.recent {
            recent.take_if(|(_, entry)| entry.last < unused);
        }
        Ok(())
    }
}

/// Where among the recent ones something is, if it is there: it is some hundred bytes apart from the next.
fn place<T>(key: &Arc<Interned<T>>) -> usize {
    (Arc::as_ptr(key).addr() >> 6) % RECENT
}

pub(super) const SCOPE_COLUMNS: [&str; 9] =
    ["pod", "pod_uid", "namespace", "workload", "listener", "route", "rule", "mode", "policy_revision"];

pub(super) fn scope_values<'a>(pod: &'a Pod, scope: &'a Scope) -> [Option<&'a str>; 9] {
    let ScopeFacts { listener, route, rule, mode, policy_revision, counted: _ } = &**scope;
    let told = |text: &'a str| Some(text).filter(|text| !text.is_empty());
    [
        told(&pod.name),
        told(&pod.uid),
        told(&pod.namespace),
        told(&pod.workload),
        listener.as_deref(),
        route.as_deref(),
        rule.as_deref(),
        *mode,
        policy_revision.as_deref(),
    ]
}

pub(super) const PEER_COLUMNS: [&str; 12] = [
    "identity",
    "bundle",
    "subject",
    "san",
    "issuer",
    "serial",
    "fingerprint",
    "spki",
    "lfdi",
    "sfdi",
    "tls_version",
    "cipher",
];

pub(super) fn peer_values(peer: &Peer) -> [Option<&str>; 12] {
    let PeerFacts {
        identity,
        bundle,
        subject,
        san,
        issuer,
        serial,
        fingerprint,
        spki,
        lfdi,
        sfdi,
        tls_version,
        cipher,
    } = &**peer;
    [
        identity.as_deref(),
        bundle.as_deref(),
        subject.as_deref(),
        san.as_deref(),
        issuer.as_deref(),
        serial.as_deref(),
        fingerprint.as_deref(),
        spki.as_deref(),
        lfdi.as_deref(),
        sfdi.as_deref(),
        *tls_version,
        *cipher,
    ]
}

/// Methods of RFC 9110 and PATCH; any other is the client's invention and stays in its row.
fn is_standard(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    )
}

/// Whether host and server name are such as a known identity sends to a known route: a stranger must not fill the words.
fn names_are_ours(record: &Record) -> bool {
    record.scope.as_ref().is_some_and(|scope| scope.route.is_some())
        && record.peer.as_ref().is_some_and(|peer| peer.identity.is_some())
}
