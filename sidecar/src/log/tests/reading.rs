//! From the file to who asks: the view's columns, the filters, and output that is safe to look at.

use std::io::{self, Write};
use std::sync::Mutex;

use sidecar_decide::CertificateFacts;
use sidecar_decide::reason::Reason;

use super::*;
use crate::identity::logged_unresolved;
use crate::log::serial as serial_of;
use crate::tls::TlsPeer;

const VIEW: &str = "id,time,kind,repeat,pod,pod_uid,namespace,workload,listener,sni,route,rule,mode,verdict,reason,limiter,\
identity,bundle,subject,san,issuer,serial,fingerprint,spki,lfdi,sfdi,tls_version,cipher,resumed,protocol,method,host,path,status,\
grpc_status,request_bytes,response_bytes,duration_us,queue_us,connect_us,upstream_us,upstream,attempts,request_id,trace_id,\
message_type,client_addr,policy_revision,chain,captured,bodies";

/// What the command asks for without flags.
fn all() -> Filter {
    Filter { limit: 100, ..Filter::default() }
}

fn print(path: &Path, filter: &Filter, output: Output) -> String {
    let mut out = Vec::new();
    block_on(query::rows(path, filter, output, &mut out, &Unread::default())).unwrap();
    String::from_utf8(out).unwrap()
}

fn refusal(path: &Path, sql: &str) -> String {
    block_on(query::sql(path, sql, Output::Csv, &mut Vec::new(), &Unread::default())).unwrap_err().to_string()
}

#[test]
fn every_column_comes_back() {
    let (_folder, path) = folder();
    written(&path, vec![request(0)]);
    let csv = print(&path, &all(), Output::Csv);
    let (header, row) = csv.split_once("\r\n").unwrap();
    assert_eq!(header, VIEW);
    assert_eq!(ask(&path, "SELECT * FROM requests"), row.trim_end(), "the view has the same columns in the same order");
    let (id, rest) = row.trim_end().split_once(',').unwrap();
    assert!(id.starts_with("018bcfe5-687b-774b-"), "{id}");
    assert_eq!(
        rest,
        "2023-11-14T22:13:20.123456Z,request,1,orders-1,uid-1,shop,orders,main,orders.example,shop/orders,read,enforce,\
         allowed,,,meter-7,fleet,CN=meter-7,DNS:meter-7.example,CN=Fleet CA,0a,f1,51,1f,5f,TLSv1.3,TLS13_AES_256_GCM_SHA384,1,\
         HTTP/2,GET,orders.example,/orders/0,200,,10,2000,1500,100,300,1200,10.0.0.7:8080,1,\
         018bcfe5-687b-774b-8123-456789abcdef,7472616365206f66206e6f2d6f6e652e,,192.0.2.9:51000,0123456789ab,,,"
    );
}

/// The standard's own examples (IEEE 2030.5), from the certificate's digest to the row.
#[test]
fn device_identifiers_come_back() {
    let (_folder, path) = folder();
    let rows = [
        ("3e4f45ab31edfe5b67e343e5e4562e31984e23e5", "167261211391"),
        ("30a13b2277d008c891e06e1d34ee728cc3a6db2b", "130539648399"),
        ("000000000fffffffffffffffffffffffffffffff", "000000000000"),
    ];
    let peer_of = |lfdi: &str| {
        let byte = |at: usize| lfdi.get(2 * at..2 * at + 2).map_or(0, |pair| u8::from_str_radix(pair, 16).unwrap());
        let facts = CertificateFacts { sha256: std::array::from_fn(byte), ..certificate() };
        logged_unresolved(&TlsPeer { facts: Some(Arc::new(facts)), ..TlsPeer::default() })
    };
    written(&path, rows.iter().map(|(lfdi, _)| Record { peer: Some(peer_of(lfdi)), ..request(0) }).collect());
    let expected: Vec<_> = rows.iter().map(|(lfdi, sfdi)| format!("{lfdi},{sfdi}")).collect();
    assert_eq!(ask(&path, "SELECT lfdi, sfdi FROM requests"), expected.join("\n"));
}

fn certificate() -> CertificateFacts {
    CertificateFacts {
        subject: String::new(),
        issuer: String::new(),
        common_name: None,
        serial: "01".to_owned(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        san: String::new(),
        not_before: 0,
        not_after: 0,
        sha256: [0; 32],
        spki: Vec::new(),
        self_issued: false,
        is_ca: false,
        signs_crls: true,
        addresses: Vec::new(),
    }
}

#[test]
fn the_words_of_a_row_come_back() {
    let cases: [(Record, &str); 7] = [
        (Record { kind: Kind::Connection, protocol: None, ..request(0) }, "connection,allowed,,,GET,orders.example"),
        (
            Record { kind: Kind::Handshake, verdict: Verdict::Refused, reason: Some(Reason::TlsExpired), ..request(0) },
            "handshake,refused,tls_expired,HTTP/2,GET,orders.example",
        ),
        (
            Record { verdict: Verdict::WouldRefuse, reason: Some(Reason::PolicyNotAllowed), ..request(0) },
            "request,would_refuse,policy_not_allowed,HTTP/2,GET,orders.example",
        ),
        (Record { protocol: Some("HTTP/1.1"), ..request(0) }, "request,allowed,,HTTP/1.1,GET,orders.example"),
        (
            Record { method: Some(Method::from_bytes(b"17").unwrap()), ..request(0) },
            "request,allowed,,HTTP/2,17,orders.example",
        ),
        (Record { peer: None, host: Some("42".into()), ..request(0) }, "request,allowed,,HTTP/2,GET,42"),
        (Record { method: None, host: None, scope: None, ..request(0) }, "request,allowed,,HTTP/2,,"),
    ];
    for (record, expected) in cases {
        let (_folder, path) = folder();
        written(&path, vec![record]);
        assert_eq!(ask(&path, "SELECT kind, verdict, reason, protocol, method, host FROM requests"), expected);
    }
}

#[test]
fn addresses_come_back() {
    for address in ["0.0.0.0:0", "255.255.255.255:65535", "[2001:db8::1]:443", "[fe80::1%3]:1", "127.0.0.1:6190"] {
        let (_folder, path) = folder();
        let parsed: SocketAddr = address.parse().unwrap();
        written(&path, vec![Record { client_addr: Some(parsed.into()), upstream: Some(parsed), ..request(0) }]);
        assert_eq!(ask(&path, "SELECT client_addr, upstream FROM requests"), format!("{address},{address}"));
    }
}

#[test]
fn ids_are_unique_stable_and_shaped_as_uuid_v7() {
    let (_folder, path) = folder();
    // The same microsecond for all: what tells them apart is the rest.
    written(&path, (0..300).map(|_| request(0)).collect());
    let ids = ask(&path, "SELECT id FROM requests");
    assert_eq!(ask(&path, "SELECT id FROM requests"), ids);
    let mut seen: Vec<&str> = ids.lines().collect();
    for id in &seen {
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
        assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
        assert!(groups[2].starts_with('7') && groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 300);
}

#[test]
fn text_is_cut_at_its_bound() {
    let (_folder, path) = folder();
    let long = "ä".repeat(TEXT_MAX);
    written(&path, vec![Record { path: Some(long.as_str().into()), host: Some(clip(&long).into()), ..request(0) }]);
    let kept = "ä".repeat(TEXT_MAX / 2);
    assert_eq!(ask(&path, "SELECT path FROM requests"), kept);
    assert_eq!(ask(&path, "SELECT host FROM requests"), format!("{kept}…"));
}

#[test]
fn facts_hash_the_same_in_every_build() {
    assert_eq!(peer("a"), peer("a"));
    assert_ne!(peer("a"), peer("b"));
    // What an earlier run stored is found by it.
    assert_eq!(peer("a").stable_hash(), 18_289_543_379_902_272_721);
}

#[test]
fn filters_choose_rows() {
    let (_folder, path) = folder();
    let refused = |number, reason| Record { verdict: Verdict::Refused, reason: Some(reason), ..request(number) };
    let from = |number, client: &str| Record {
        client_addr: Some(Client::Address(client.parse().unwrap())),
        ..request(number)
    };
    let serial =
        PeerFacts { serial: Some("5a:01".into()), fingerprint: Some("sha256:ab01".into()), ..facts("meter-8") };
    let stranger = Record { kind: Kind::Handshake, peer: None, scope: None, ..refused(6, Reason::TlsUnknownCa) };
    written(
        &path,
        vec![
            request(0),
            refused(1, Reason::PolicyNotAllowed),
            Record { status: Some(404), ..refused(2, Reason::RouteNoPath) },
            Record { peer: Some(Arc::new(Peer::new(serial))), ..request(3) },
            from(4, "192.0.20.9:2"),
            from(5, "[2001:db8::9]:90"),
            stranger,
        ],
    );
    let text = |text: &str| Some(text.to_owned());
    let client = |address: &str| Some(address.parse().unwrap());
    let cases = [
        (all(), "0 1 2 3 4 5 6"),
        (Filter { limit: 2, ..all() }, "5 6"),
        (Filter { limit: 0, ..all() }, ""),
        (Filter { verdict: Some(Verdict::Refused), ..all() }, "1 2 6"),
        (Filter { verdict: Some(Verdict::Refused), limit: 1, ..all() }, "6"),
        (Filter { reason: text("route_no_path"), ..all() }, "2"),
        (Filter { identity: text("meter-8"), ..all() }, "3"),
        (Filter { identity: text("' OR 1=1 --"), ..all() }, ""),
        (Filter { since: Some(request(2).time), ..all() }, "2 3 4 5 6"),
        (Filter { until: Some(request(2).time), ..all() }, "0 1"),
        (Filter { since: Some(request(2).time), verdict: Some(Verdict::Allowed), ..all() }, "3 4 5"),
        (Filter { since: Some(request(2).time), until: Some(request(4).time), ..all() }, "2 3"),
        (Filter { kind: Some(Kind::Handshake), ..all() }, "6"),
        (Filter { listener: text("main"), ..all() }, "0 1 2 3 4 5"),
        (Filter { route: text("shop/orders"), limit: 1, ..all() }, "5"),
        (Filter { route: text("shop"), ..all() }, ""),
        (Filter { host: text("orders.example"), limit: 1, ..all() }, "6"),
        (Filter { path: text("/orders/3"), ..all() }, "3"),
        (Filter { path: text("/ord"), ..all() }, "0 1 2 3 4 5 6"),
        (Filter { path: text("%"), ..all() }, ""),
        (Filter { status: Some((400, 499)), ..all() }, "2"),
        (Filter { client: client("192.0.2.9"), ..all() }, "0 1 2 3 6"),
        (Filter { client: client("192.0.20.9"), ..all() }, "4"),
        (Filter { client: client("2001:db8::9"), ..all() }, "5"),
        (Filter { client: client("192.0.2.90"), ..all() }, ""),
        (Filter { serial: text(&serial_of("5A01")), ..all() }, "3"),
        (Filter { fingerprint: text(&fingerprint("AB:01")), ..all() }, "3"),
    ];
    for (filter, expected) in cases {
        let lines = print(&path, &filter, Output::Json);
        let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let numbers: Vec<&str> =
            rows.iter().map(|row| row["path"].as_str().unwrap().trim_start_matches("/orders/")).collect();
        assert_eq!(numbers.join(" "), expected, "{filter:?}");
    }
}

#[test]
fn a_client_is_found_in_the_network_of_several() {
    let (_folder, path) = folder();
    let network = |address: &str| Some(Client::Network(Network::of(address.parse().unwrap())));
    let rows = ["192.0.2.9", "192.0.3.9", "2001:db8:7:1::1"];
    written(&path, rows.map(|address| Record { client_addr: network(address), ..request(0) }).to_vec());
    for (address, expected) in [("192.0.2.200", "192.0.2.0/24"), ("2001:db8:7:ff::", "2001:db8:7::/48")] {
        let filter = Filter { client: Some(address.parse().unwrap()), ..all() };
        let row: serde_json::Value = serde_json::from_str(&print(&path, &filter, Output::Json)).unwrap();
        assert_eq!(row["client_addr"], expected);
    }
}

#[test]
fn statuses_and_certificates_are_written_in_more_than_one_way() {
    let table = [
        ("404", Some((404, 404))),
        ("5xx", Some((500, 599))),
        ("400-499", Some((400, 499))),
        ("499-400", None),
        ("0xx", None),
        ("99", None),
        ("1000", None),
        ("", None),
        ("xx", None),
        ("-", None),
    ];
    for (text, expected) in table {
        assert_eq!(statuses(text).ok(), expected, "{text}");
    }
    assert_eq!((fingerprint("sha256:ab01"), fingerprint("AB:01")), ("sha256:ab01".into(), "sha256:ab01".into()));
    assert_eq!((serial_of("5a:01"), serial_of("A01"), serial_of("")), ("5a:01".into(), "0a:01".into(), String::new()));
}

pub(super) fn with_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Whether a checkpoint was kept from being complete.
fn folded(path: &Path) -> String {
    block_on(async {
        let mut connection = connect(path).await;
        let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        busy.to_string()
    })
}

/// A reader that has seen enough when the last row comes.
pub(super) struct Enough {
    pub(super) out: Arc<Mutex<Vec<u8>>>,
}

impl Write for Enough {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let is_last = String::from_utf8_lossy(&self.out.lock().unwrap()).contains("/orders/last");
        if is_last { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[test]
fn what_is_followed_is_printed_as_it_comes_and_holds_nothing_up() {
    let (_folder, path) = folder();
    written(&path, (0..5).map(request).collect());
    let out = Arc::new(Mutex::new(Vec::new()));
    let printed = |wanted: &str| {
        let wanted = wanted.to_owned();
        let out = Arc::clone(&out);
        move || {
            let lines = String::from_utf8(out.lock().unwrap().clone()).unwrap();
            lines
                .lines()
                .filter_map(|line| line.split("/orders/").nth(1)?.split('"').next())
                .collect::<Vec<_>>()
                .join(" ")
                == wanted
        }
    };
    thread::scope(|threads| {
        let follower = threads.spawn(|| {
            let filter = Filter { path: Some("/orders/".into()), limit: 2, ..Filter::default() };
            let mut enough = Enough { out: Arc::clone(&out) };
            with_time().block_on(follow(&path, &filter, Output::Json, &mut enough, &mut |_| {}))
        });
        wait("the newest", printed("3 4"));
        let log = Log::start(&path, LARGE);
        log.sender.send(Box::new(request(5)));
        log.sender.send(Box::new(Record { path: Some("/other".into()), ..request(6) }));
        wait("a new one", printed("3 4 5"));
        // Nothing of it pins the write-ahead log: it can be folded to its end.
        assert_eq!(folded(&path), "0");
        // A file that is replaced is left for the new one.
        std::fs::remove_file(&path).unwrap();
        log.sender.send(Box::new(request(7)));
        wait("one of the new file", printed("3 4 5 7"));
        log.sender.send(Box::new(Record { path: Some("/orders/last".into()), ..request(8) }));
        let ended = follower.join().unwrap().unwrap_err();
        assert!(matches!(ended, QueryError::Output(_)), "{ended}");
        assert!(log.stop().clean);
    });
}

#[test]
fn json_keeps_kinds_of_values() {
    let (_folder, path) = folder();
    written(&path, vec![Record { path: Some("/\"\u{1b}[2J".into()), ..request(0) }]);
    let mut out = Vec::new();
    let printed = block_on(query::sql(
        &path,
        "SELECT path, status, reason, 1.5 AS half, x'00ff' AS raw FROM requests",
        Output::Json,
        &mut out,
        &Unread::default(),
    ));
    assert_eq!(printed.unwrap(), Printed { rows: 1, cut: false });
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"path\":\"/\\\"\\u001b[2J\",\"status\":200,\"reason\":null,\"half\":1.5,\"raw\":\"00ff\"}\n"
    );
}

#[test]
fn csv_is_quoted() {
    let (_folder, path) = folder();
    written(&path, vec![Record { path: Some("/a,\"b\"".into()), ..request(0) }]);
    assert_eq!(ask(&path, "SELECT path, status FROM requests"), "\"/a,\"\"b\"\"\",200");
}

#[test]
fn a_table_is_aligned_cut_and_safe() {
    let (_folder, path) = folder();
    let long = format!("/{}", "x".repeat(100));
    written(
        &path,
        vec![
            Record { path: Some("/\u{1b}[31m\u{202e}\n\u{9b}".into()), status: None, ..request(0) },
            Record { path: Some(long.into()), ..request(1) },
        ],
    );
    assert_eq!(
        print(&path, &all(), Output::Table),
        "\
time                         kind     verdict  reason  identity  method  host            path                                              status  duration_us
2023-11-14T22:13:20.123456Z  request  allowed  -       meter-7   GET     orders.example  /\\u{1b}[31m\\u{202e}\\u{a}\\u{9b}                    -       1500
2023-11-14T22:13:20.123457Z  request  allowed  -       meter-7   GET     orders.example  /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…  200     1500
"
    );
}

#[test]
fn many_rows_are_one_table() {
    let (_folder, path) = folder();
    written(&path, (0..250).map(request).collect());
    let table = print(&path, &Filter { limit: 250, ..all() }, Output::Table);
    assert_eq!(table.lines().count(), 251);
}

#[test]
fn only_one_select_is_answered() {
    let (_folder, path) = folder();
    written(&path, vec![request(0)]);
    let refused = QueryError::NotAQuery.to_string();
    for sql in [
        "",
        ";",
        "-- nothing",
        "DELETE FROM decision",
        "PRAGMA query_only = OFF",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM decision",
        "/* SELECT */ DROP TABLE decision",
        "SELECT ';' -- ;\n; DELETE FROM decision",
        "'SELECT'",
    ] {
        assert_eq!(refusal(&path, sql), refused, "{sql}");
    }
    assert_eq!(refusal(&path, "WITH a AS (SELECT 1) DELETE FROM decision"), refused);
    for (sql, answer) in [
        ("select 1;", "1"),
        ("  /* a; b */ SELECT ';' -- ; c", ";"),
        ("SELECT 'it''s; fine', \"path\" FROM requests ;\n", "it's; fine,/orders/0"),
        ("WITH a AS (SELECT 2 AS b) SELECT b FROM a", "2"),
        ("VALUES (1), (2)", "1\n2"),
    ] {
        assert_eq!(ask(&path, sql), answer, "{sql}");
    }
    assert_eq!(ask(&path, "SELECT count(*) FROM requests"), "1");
}

#[test]
fn rows_are_bounded() {
    let (_folder, path) = folder();
    written(&path, Vec::new());
    let endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let printed = block_on(query::sql(&path, endless, Output::Csv, &mut Vec::new(), &Unread::default())).unwrap();
    assert_eq!(printed, Printed { rows: query::ROWS_MAX, cut: true });
}

#[test]
fn a_missing_log_is_said() {
    let (folder, path) = folder();
    let expected = format!(
        "there is no request log at {}: name the file with the setting log.path, or start the sidecar that writes it",
        path.display()
    );
    assert_eq!(refusal(&path, "SELECT 1"), expected);
    assert_eq!(
        block_on(query::rows(&path, &all(), Output::Table, &mut Vec::new(), &Unread::default()))
            .unwrap_err()
            .to_string(),
        expected
    );
    drop(folder);
}

#[test]
fn reading_goes_on_beside_the_writer() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    log.sender.send(Box::new(request(0)));
    wait("the row", || log.stats.rows_written() == 1);
    assert_eq!(ask(&log.path, "SELECT path FROM requests"), "/orders/0");
    assert!(log.stop().clean);
}

/// What version 1 left: its schema, and the row of a meter and of nobody.
pub(super) const VERSION_1: &str = concat!(
    include_str!("schema-1.sql"),
    "INSERT INTO peer (id, hash, last, identity, lfdi) VALUES
       (1, 7, 2, 'meter', '3e4f45ab31edfe5b67e343e5e4562e31984e23e5'), (2, 8, 2, 'stranger', NULL);
     INSERT INTO decision (time, kind, verdict, peer, path) VALUES
       (1700000000000000, 0, 0, 1, '/old/0'), (1700000000000001, 0, 1, 2, '/old/1'), (1700000000000002, 2, 1, NULL, NULL);
     PRAGMA user_version = 1"
);

#[test]
fn a_file_of_an_earlier_version_is_read_and_brought_up_to_date() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    execute(&path, VERSION_1);
    // A copy is read as it is.
    let old = print(&path, &all(), Output::Csv);
    assert_eq!(old.split_once("\r\n").unwrap().0, VIEW.replace(",sfdi", "").replace(",chain,captured,bodies", ""));
    assert_eq!(old.lines().count(), 4);
    assert_eq!(print(&path, &all(), Output::Table).lines().count(), 4);
    written(&path, vec![request(0)]);
    assert_eq!(print(&path, &all(), Output::Csv).split_once("\r\n").unwrap().0, VIEW);
    let expected = "request,allowed,meter,/old/0,167261211391\nrequest,refused,stranger,/old/1,\n\
                    connection,refused,,,\nrequest,allowed,meter-7,/orders/0,5f";
    assert_eq!(ask(&path, "SELECT kind, verdict, identity, path, sfdi FROM requests"), expected);
    assert_eq!(ask(&path, "SELECT user_version FROM pragma_user_version"), "8");
    assert_columns_of_a_new_file(&path);
}
