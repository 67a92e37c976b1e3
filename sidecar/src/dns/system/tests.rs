//! What files say of how names are looked up.

use std::time::Duration;

use sidecar_config::settings::Dns;

use super::{Resolving, hosts};

#[test]
fn what_resolv_conf_says() {
    let kubernetes =
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
    /// The text, and its servers, domains, dots, seconds and attempts.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], usize, u64, u32);
    let table: [Row<'_>; 8] = [
        ("", &["127.0.0.1:53"], &[], 1, 5, 2),
        (kubernetes, &["10.96.0.10:53"], &["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"], 5, 5, 2),
        (
            "nameserver ::1\nnameserver fe80::1%eth0\nnameserver 10.0.0.1 # ours",
            &["[::1]:53", "10.0.0.1:53"],
            &[],
            1,
            5,
            2,
        ),
        (
            "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
            &["1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"],
            &[],
            1,
            5,
            2,
        ),
        ("domain a.b\nsearch c d\n# search e", &["127.0.0.1:53"], &["c", "d"], 1, 5, 2),
        ("search c d\ndomain a.b", &["127.0.0.1:53"], &["a.b"], 1, 5, 2),
        ("options timeout:2 attempts:3 rotate ndots:x", &["127.0.0.1:53"], &[], 1, 2, 3),
        ("options timeout:900 attempts:0 ndots:99\n;nameserver 9.9.9.9\nsortlist 1", &["127.0.0.1:53"], &[], 15, 30, 1),
    ];
    for (text, servers, search, ndots, timeout, attempts) in table {
        let expected = Resolving {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search: search.iter().map(|domain| (*domain).to_owned()).collect(),
            ndots,
            timeout: Duration::from_secs(timeout),
            attempts,
        };
        assert_eq!(Resolving::of_system(text), expected, "{text}");
    }
}

#[test]
fn which_names_are_tried() {
    let table: [(&str, usize, &[&str], &[&str]); 8] = [
        ("app", 1, &[], &["app."]),
        ("app.", 5, &["a"], &["app."]),
        ("app", 1, &["a.b", "c."], &["app.a.b.", "app.c.", "app."]),
        ("app.shop", 1, &["a"], &["app.shop.", "app.shop.a."]),
        ("app.shop", 5, &["a", "b"], &["app.shop.a.", "app.shop.b.", "app.shop."]),
        ("app", 0, &["a"], &["app.", "app.a."]),
        ("app", 1, &["."], &["app."]),
        ("a.b.c.d.e.f", 5, &["x"], &["a.b.c.d.e.f.", "a.b.c.d.e.f.x."]),
    ];
    for (name, ndots, search, expected) in table {
        let search = search.iter().map(|domain| (*domain).to_owned()).collect();
        assert_eq!(Resolving { ndots, search, ..Resolving::default() }.candidates(name), expected, "{name} {ndots}");
    }
}

#[test]
fn what_hosts_says() {
    let text = "127.0.0.1 localhost localhost.localdomain\n::1\tlocalhost ip6-localhost # loopback\n#10.0.0.1 app\n10.0.0.2 App.Local app\nnonsense app\n";
    let table: [(&str, &[&str]); 6] = [
        ("localhost", &["127.0.0.1", "::1"]),
        ("app", &["10.0.0.2"]),
        ("app.local", &["10.0.0.2"]),
        ("APP.LOCAL.", &["10.0.0.2"]),
        ("loopback", &[]),
        ("10.0.0.2", &[]),
    ];
    for (name, expected) in table {
        let found: Vec<_> = hosts(text, name).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn settings_go_before_the_system() {
    assert_eq!(Resolving::of_settings(&Dns::default()), None);
    let settings = Dns { servers: vec!["127.0.0.1:5353".parse().unwrap()], search: vec!["a".to_owned()], ndots: 2 };
    let resolving = Resolving::of_settings(&settings).unwrap();
    assert_eq!(
        (resolving.servers.len(), resolving.candidates("x.y")),
        (1, vec!["x.y.a.".to_owned(), "x.y.".to_owned()])
    );
}
