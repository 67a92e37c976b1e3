//! What is told of many rows, of one, and of all: `log top`, `log why` and `log export`.

use sidecar_decide::{Limiter, Reason};

use super::segments::{compress, open, small, write};
use super::*;
use crate::log::query::newest;

fn exported(path: &Path, filter: &Filter, order: Order, output: Output) -> (String, Vec<Progress>) {
    let (mut out, mut told) = (Vec::new(), Vec::new());
    let mut store = crate::log::Store::Files(path.to_owned());
    let mut tell = |progress| told.push(progress);
    let rows = block_on(export(&mut store, filter, order, output, &mut out, &mut tell, &Unread::default())).unwrap();
    assert_eq!(told.last().map(|progress| progress.rows), Some(rows));
    (String::from_utf8(out).unwrap(), told)
}

fn numbers(text: &str) -> Vec<u64> {
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["path"].as_str().unwrap().trim_start_matches("/orders/").parse().unwrap()).collect()
}

/// Thousands of rows in segments, some of them compressed, and the newest in the live file.
fn cut(path: &Path) -> u64 {
    let mut store = open(path, small(LARGE));
    write(&mut store, 0..6000);
    compress(path, small(LARGE));
    write(&mut store, 6000..9000);
    assert!(segments_of(path) > 2, "segments");
    9000
}

fn segments_of(path: &Path) -> usize {
    crate::log::segments::list(path).unwrap().len()
}

#[test]
fn an_export_has_every_row_once_in_either_order() {
    let (_folder, path) = folder();
    let count = cut(&path);
    let all = Filter::default();
    let (text, told) = exported(&path, &all, Order::OldestFirst, Output::Json);
    assert_eq!(numbers(&text), (0..count).collect::<Vec<_>>());
    let shares: Vec<_> = told.iter().filter_map(|progress| progress.walked).collect();
    assert!(shares.is_sorted() && shares.last() == Some(&(count, count)), "{shares:?}");
    let (text, _) = exported(&path, &all, Order::NewestFirst, Output::Json);
    assert_eq!(numbers(&text), (0..count).rev().collect::<Vec<_>>());
    let late = Filter { since: Some(request(5990).time), until: Some(request(6010).time), ..all };
    for (order, expected) in
        [(Order::OldestFirst, (5990..6010).collect::<Vec<_>>()), (Order::NewestFirst, (5990..6010).rev().collect())]
    {
        assert_eq!(numbers(&exported(&path, &late, order, Output::Json).0), expected);
    }
    let nothing = Filter { identity: Some("nobody".to_owned()), ..Filter::default() };
    assert_eq!(exported(&path, &nothing, Order::OldestFirst, Output::Json).0, "");
    let (csv, _) = exported(&path, &nothing, Order::OldestFirst, Output::Csv);
    assert_eq!(csv, format!("{}\r\n", postern_postgres::columns::NAMES.replace(", ", ",")));
}

/// What comes while it is written is not in it, or it would never end; what is cut off meanwhile is, once.
#[test]
fn an_export_is_of_what_was_there_when_it_began() {
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let (_folder, path) = folder();
        let mut store = open(&path, small(LARGE));
        write(&mut store, 0..5000);
        let (mut out, mut next) = (Vec::new(), 5000);
        let mut log = crate::log::Store::Files(path.clone());
        let before = segments_of(&path);
        let mut tell = |_| {
            thread::scope(|scope| {
                scope.spawn(|| write(&mut store, next..next + 1500)).join().unwrap();
            });
            next += 1500;
        };
        let all = Filter::default();
        block_on(export(&mut log, &all, order, Output::Json, &mut out, &mut tell, &Unread::default())).unwrap();
        assert!(segments_of(&path) > before, "cut meanwhile");
        let mut found = numbers(&String::from_utf8(out).unwrap());
        if order == Order::NewestFirst {
            found.reverse();
        }
        assert_eq!(found, (0..5000).collect::<Vec<_>>(), "{order:?}");
    }
}

#[test]
fn csv_is_no_formula_to_a_spreadsheet() {
    let table = [
        ("=1+2", "'=1+2"),
        ("+a1", "'+a1"),
        ("-1+a1", "'-1+a1"),
        ("=1", "'=1"),
        ("-1.5", "-1.5"),
        ("+1", "+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "\"'\r=1\""),
        ("=HYPERLINK(\"http://x\",1)", "\"'=HYPERLINK(\"\"http://x\"\",1)\""),
        ("a=1", "a=1"),
        ("say \"no\", or", "\"say \"\"no\"\", or\""),
        ("two\nlines", "\"two\nlines\""),
    ];
    for (host, field) in table {
        let (_folder, path) = folder();
        written(&path, vec![Record { host: Some(host.into()), ..request(0) }]);
        assert_eq!(ask(&path, "SELECT host, -1 AS number FROM requests"), format!("{field},-1"), "{host:?}");
    }
}

#[test]
fn what_is_printed_moves_no_terminal() {
    let (_folder, path) = folder();
    // An escape sequence, the same in one character, right to left, a tag, and what is harmless.
    let host = "\u{1b}[2J\u{9b}2J\u{202e}\u{e0041}\0 é日\"";
    written(&path, vec![Record { host: Some(host.into()), ..request(0) }]);
    let printed = |output| {
        let mut out = Vec::new();
        block_on(query::sql(&path, "SELECT host FROM requests", output, &mut out, &Unread::default())).unwrap();
        String::from_utf8(out).unwrap()
    };
    let shown = "\\u{1b}[2J\\u{9b}2J\\u{202e}\\u{e0041}\\u{0} é日";
    assert_eq!(printed(Output::Table).lines().nth(1), Some(format!("{shown}\"").as_str()));
    assert_eq!(printed(Output::CsvShown), format!("host\r\n\"{shown}\"\"\"\r\n"));
    assert_eq!(printed(Output::Csv), format!("host\r\n\"{}\"\r\n", host.replace('"', "\"\"")));
    let json = printed(Output::Json);
    let text = r#"{"host":"\u001b[2J\u009b2J\u202e\udb40\udc41\u0000 é日\""}"#;
    assert_eq!(json, format!("{text}\n"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["host"], host);
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let (folder, path) = folder();
    written(&path, vec![request(0)]);
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let table = [
        (folder.path().to_owned(), "disk I/O error"),
        (file("empty", b""), "no such table: meta"),
        (file("text", &[b'x'; 5000]), "file is not a database"),
    ];
    let filter = Filter { limit: 1, ..Filter::default() };
    for (path, expected) in table {
        let asked = [
            block_on(query::rows(&path, &filter, Output::Json, &mut Vec::new(), &Unread::default())).err(),
            block_on(query::sql(&path, "SELECT 1", Output::Json, &mut Vec::new(), &Unread::default())).err(),
            block_on(follow(&path, &filter, Output::Json, &mut Vec::new(), &mut |_| {})).err(),
        ];
        for error in asked {
            let error = error.unwrap().to_string();
            let beginning = format!("{} cannot be read as a request log: ", path.display());
            assert!(error.starts_with(&beginning) && error.contains(expected), "{error}");
        }
    }
}

fn counted(path: &Path, filter: &Filter, by: By) -> String {
    let mut out = Vec::new();
    let mut store = crate::log::Store::Files(path.to_owned());
    let options = TopOptions { by, counts: false, output: Output::Csv };
    block_on(top(&mut store, filter, options, &mut out, &mut |_| {}, &Unread::default())).unwrap();
    String::from_utf8(out).unwrap().replace("\r\n", "\n")
}

#[test]
fn top_counts_decisions_by_what_is_asked_for() {
    let (_folder, path) = folder();
    let refused = |number, reason| Record { verdict: Verdict::Refused, reason: Some(reason), ..request(number) };
    let watched = Record {
        verdict: Verdict::WouldRefuse,
        reason: Some(Reason::PolicyNotAllowed),
        peer: Some(Arc::new(peer("meter-8"))),
        duration_us: 100_000,
        ..request(3)
    };
    let shared = Record {
        kind: Kind::Handshake,
        repeat: 40,
        peer: None,
        duration_us: 60_000_000,
        ..refused(4, Reason::TlsExpired)
    };
    let gap = Record { kind: Kind::Gap, repeat: 0, peer: None, ..request(5) };
    written(&path, vec![request(0), request(1), refused(2, Reason::RouteNoPath), watched, shared, gap]);
    let all = Filter { limit: 10, ..Filter::default() };
    let second = |digits: &str| format!("2023-11-14T22:13:20.{digits}Z");
    // Of a value only its first three binary digits are told apart: 1408 is the middle of 1280 to 1535.
    let expected = format!(
        "identity,decisions,allowed,refused,would_refuse,p50_us,p99_us,max_us,last\n\
         ,40,0,40,0,,,,{}\nmeter-7,3,2,1,0,1408,1408,1500,{}\nmeter-8,1,0,0,1,100000,100000,100000,{}\n",
        second("123460"),
        second("123458"),
        second("123459"),
    );
    assert_eq!(counted(&path, &all, By::Identities), expected);
    let keys = |by, filter: &Filter| {
        let text = counted(&path, filter, by);
        let rows = text.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>().join(" "));
        rows.collect::<Vec<_>>()
    };
    assert_eq!(keys(By::Reasons, &all), ["tls_expired 40", " 2", "policy_not_allowed 1", "route_no_path 1"]);
    assert_eq!(keys(By::Clients, &all), ["192.0.2.9 44"]);
    assert_eq!(keys(By::Statuses, &all), ["200 44"]);
    assert_eq!(keys(By::Reasons, &Filter { limit: 1, ..all.clone() }), ["tls_expired 40"]);
    let requests = Filter { kind: Some(Kind::Request), ..all };
    assert_eq!(keys(By::Identities, &requests), ["meter-7 3", "meter-8 1"]);
}

#[test]
fn top_counts_in_bounded_memory() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(LARGE));
    write(&mut store, 0..7000);
    let often: Vec<_> = (0..50).map(|_| Box::new(request(1))).collect();
    block_on(store.write(&often)).unwrap();
    let filter = Filter { limit: 1, ..Filter::default() };
    let text = counted(&path, &filter, By::Paths);
    let lines: Vec<_> = text.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
    let others: u64 = lines[1][1].parse().unwrap();
    assert_eq!((lines[0][0], lines[1][0], lines.len()), ("/orders/1", "…", 2));
    assert!((50..=51).contains(&lines[0][1].parse::<u64>().unwrap()) && (4000..7000).contains(&others), "{lines:?}");
}

fn why(path: &Path, id: &str) -> Option<String> {
    let mut store = crate::log::Store::Files(path.to_owned());
    block_on(find(&mut store, &Filter::default(), id, &Unread::default())).unwrap().map(|found| found.explanation())
}

/// The ids of the row and of its request.
fn ids(path: &Path) -> (String, String) {
    let told = ask(path, "SELECT id, request_id FROM requests LIMIT 1");
    told.split_once(',').map(|(row, request)| (row.to_owned(), request.to_owned())).unwrap()
}

#[test]
fn every_reason_is_explained_by_its_row() {
    let (_folder, path) = folder();
    let cases: Vec<_> =
        Reason::ALL.into_iter().flat_map(|reason| Verdict::ALL.map(|verdict| (reason, verdict))).collect();
    let record = |(number, (reason, verdict)): (u64, &(Reason, Verdict))| {
        let request_id = Some(RequestId::Told(format!("request-{number}").into()));
        Record { verdict: *verdict, reason: Some(*reason), request_id, ..request(0) }
    };
    written(&path, (0..).zip(&cases).map(record).collect());
    let rows = ask(&path, "SELECT id FROM requests ORDER BY id");
    assert_eq!(rows.lines().count(), cases.len());
    for (number, (row, (reason, verdict))) in rows.lines().zip(cases).enumerate() {
        let told = why(&path, row).unwrap();
        let request = format!("request-{number}");
        assert_eq!(why(&path, &request).as_ref(), Some(&told));
        let (code, words) = (reason.code(), reason.explanation());
        let first = match verdict {
            Verdict::Allowed => format!("allowed by rule read of shop/orders, but ended with {code}"),
            Verdict::Refused => format!("refused ({code}) by rule read of shop/orders"),
            Verdict::WouldRefuse => {
                format!("allowed, because the rule only watches; else refused ({code}) by rule read of shop/orders")
            }
        };
        let expected = format!(
            "{first}\n  \
             what: GET /orders/0, for host orders.example, server name orders.example, by HTTP/2, TLSv1.3, \
             2023-11-14T22:13:20.123456Z\n  \
             where: listener main, pod orders-1, namespace shop, workload orders, policy revision 0123456789ab\n  \
             who: meter-7, by its certificate, verified by bundle fleet, from 192.0.2.9:51000\n  \
             certificate: CN=meter-7, DNS:meter-7.example, issued by CN=Fleet CA, serial 0a, f1\n  \
             why: {}\n  what to do: {}\n  \
             answer: status 200, took 1500 µs, of it waiting 100 µs, connecting 300 µs, for the application 1200 µs, \
             upstream 10.0.0.7:8080\n  \
             ids: row {row}, request {request}, trace 7472616365206f66206e6f2d6f6e652e\n",
            words.cause, words.remedy
        );
        assert_eq!(told, expected, "{code} {verdict:?}");
    }
}

#[test]
fn a_row_without_much_is_explained_by_what_it_has() {
    let bare = |kind, reason| Record {
        kind,
        verdict: Verdict::Refused,
        reason: Some(reason),
        scope: None,
        peer: None,
        sni: None,
        protocol: None,
        method: None,
        host: None,
        path: None,
        status: None,
        queue_us: None,
        connect_us: None,
        upstream_us: None,
        upstream: None,
        request_id: None,
        trace_id: None,
        ..request(0)
    };
    let stranger = PeerFacts { identity: None, bundle: None, ..facts("who") };
    let stranger = Some(Arc::new(Peer::new(stranger)));
    let unknown = Some(Arc::new(Peer::new(PeerFacts { identity: None, ..facts("who") })));
    let time = "2023-11-14T22:13:20.123456Z";
    let table = [
        (
            bare(Kind::Handshake, Reason::TlsNoCertificate),
            "refused: tls_no_certificate",
            format!("a TLS handshake, {time}"),
            Some("nobody: no certificate, from 192.0.2.9:51000"),
        ),
        (
            Record { peer: stranger, repeat: 12, ..bare(Kind::Handshake, Reason::TlsUnknownCa) },
            "refused: tls_unknown_ca",
            format!("a TLS handshake, TLSv1.3, 12 such decisions, the first at {time}"),
            Some("nobody: what the certificate says was not verified, from 192.0.2.9:51000"),
        ),
        (
            Record { peer: unknown, ..bare(Kind::Cut, Reason::PolicyCertificateRevoked) },
            "refused: policy_certificate_revoked",
            format!("an open connection, which the gate ended, TLSv1.3, {time}"),
            Some("no known identity; the certificate is verified by bundle fleet, from 192.0.2.9:51000"),
        ),
        (
            Record { limiter: Some(Limiter::MaxConnections), ..bare(Kind::Connection, Reason::LimitConnections) },
            "refused: limit_connections",
            format!("a connection, {time}"),
            Some("nobody: no certificate, from 192.0.2.9:51000"),
        ),
        (
            Record { repeat: 0, reason: None, ..bare(Kind::Gap, Reason::TlsTimeout) },
            "no decision: before this row the process ended without closing the log, or its file was damaged; rows may be \
             missing",
            format!("a gap, {time}"),
            None,
        ),
    ];
    for (record, first, what, who) in table {
        let (_folder, path) = folder();
        written(&path, vec![record]);
        let told = why(&path, &ask(&path, "SELECT id FROM requests")).unwrap();
        let line = |name: &str| told.lines().find_map(|line| line.trim_start().strip_prefix(name)).map(str::to_owned);
        assert_eq!(told.lines().next(), Some(first));
        assert_eq!((line("what: "), line("who: ").as_deref()), (Some(what), who), "{told}");
        let limit = first.ends_with("limit_connections").then(|| "limits.maxConnections".to_owned());
        assert_eq!(line("limit: "), limit);
    }
}

#[test]
fn what_nobody_has_is_not_found() {
    let (_folder, path) = folder();
    written(&path, vec![request(0)]);
    let (row, _) = ids(&path);
    assert!(why(&path, &row.to_uppercase()).is_some());
    for id in ["", "1", "' OR 1=1 --", "018bcfe5-687b-774b-8123-456789abcdee", &row.replace('0', "1")] {
        assert_eq!(why(&path, id), None, "{id}");
    }
}

/// A row is found by its time alone, wherever it is.
#[test]
fn one_row_of_many_files_is_found() {
    let (_folder, path) = folder();
    cut(&path);
    for number in [0, 4321, 8999] {
        let filter = Filter { path: Some(format!("/orders/{number}")), limit: 1, ..Filter::default() };
        let mut id = String::new();
        let mut each = |cells: &[print::Cell<'_>]| {
            id = print::plain(cells[0]);
            Ok(())
        };
        block_on(newest(&path, &filter, "id", &mut each, &Unread::default())).unwrap();
        let told = why(&path, &id).unwrap();
        assert!(told.contains(&format!("GET /orders/{number}, for host")), "{told}");
    }
}

#[test]
fn a_terminal_is_shown_colours_and_a_pipe_none() {
    let (_folder, path) = folder();
    let refused = Record { verdict: Verdict::Refused, host: Some("refused".into()), ..request(1) };
    written(&path, vec![request(0), refused]);
    let print = |output| {
        let mut out = Vec::new();
        block_on(query::rows(&path, &Filter { limit: 9, ..Filter::default() }, output, &mut out, &Unread::default()))
            .unwrap();
        String::from_utf8(out).unwrap()
    };
    let (plain, painted) = (print(Output::Table), print(Output::Painted));
    assert!(!plain.contains('\u{1b}'));
    let without: String = painted.replace("\u{1b}[1m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
    assert_eq!(without, plain);
    let marks: Vec<_> = painted.lines().map(|line| line.matches('\u{1b}').count()).collect();
    assert_eq!(marks, [2, 0, 2], "{painted:?}");
    assert!(painted.contains("\u{1b}[31mrefused\u{1b}[0m"));
}
