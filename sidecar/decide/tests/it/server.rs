//! The gate's own certificates: which one is shown, and which hosts belong to it.

use std::net::IpAddr;

use serde_json::{Value, json};
use sidecar_config::policy::UnknownServerName::{Default, Refuse};
use sidecar_decide::snapshot::AcceptedIdentity;
use sidecar_decide::{Certificate, CertificateFacts, Files, Reason, accept};

use crate::fixture::{facts, read};

const DEFAULT: usize = 0;
const SHOP: usize = 1;
const ORDERS: usize = 2;
const PAY: usize = 3;

/// A default without names, a wildcard, a name below it, and one with an address and names that mean nothing.
fn four() -> AcceptedIdentity {
    let table: [(&str, &[&str], &[&str]); 4] = [
        ("default", &[], &[]),
        ("shop", &["*.shop.example", "shop.example"], &[]),
        ("orders", &["orders.shop.example", "orders.example"], &[]),
        ("pay", &["pay.example.", "p*.example", "*.*.example", "a.*.example", "*."], &["192.0.2.7", "2001:db8::7"]),
    ];
    accepted(&table)
}

fn accepted(table: &[(&str, &[&str], &[&str])]) -> AcceptedIdentity {
    accepted_with(table, |_| ())
}

fn accepted_with(table: &[(&str, &[&str], &[&str])], change: impl FnOnce(&mut Value)) -> AcceptedIdentity {
    let mut files = Files::default();
    for (digest, (name, dns_names, addresses)) in (0..).zip(table) {
        let facts = CertificateFacts {
            dns_names: dns_names.iter().map(|&name| name.to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            ..facts(name, digest)
        };
        files.certificates.insert(format!("{name}.pem"), Ok(vec![Certificate { der: vec![digest], facts }]));
        files.public_keys.insert(format!("{name}.key"), Ok(vec![digest]));
    }
    let pair = |name: &str| json!({"chain": format!("{name}.pem"), "key": format!("{name}.key")});
    let mut document = pair(table[0].0);
    document["certificates"] = Value::from_iter(table[1..].iter().map(|(name, ..)| pair(name)));
    change(&mut document);
    accept::identity(&read(document), &files).expect("a good document")
}

#[test]
fn the_name_chooses_the_certificate() {
    let identity = four();
    let unknown = |index| (Ok(index), Err(Reason::TlsUnknownSni));
    let known = |index| (Ok(index), Ok(index));
    let rows = [
        ("shop.example", known(SHOP)),
        ("SHOP.example", known(SHOP)),
        ("shop.example.", known(SHOP)),
        ("a.shop.example", known(SHOP)),
        // Exact before wildcard, wherever it stands.
        ("orders.shop.example", known(ORDERS)),
        ("ORDERS.shop.example", known(ORDERS)),
        ("orders.example", known(ORDERS)),
        ("pay.example", known(PAY)),
        // A wildcard is one label, the whole of it (RFC 9525 §6.3).
        ("b.a.shop.example", unknown(DEFAULT)),
        (".shop.example", unknown(DEFAULT)),
        ("ashop.example", unknown(DEFAULT)),
        ("p1.example", unknown(DEFAULT)),
        ("a.b.example", unknown(DEFAULT)),
        ("*.shop.example", known(SHOP)),
        ("a.*.example", unknown(DEFAULT)),
        ("other.example", unknown(DEFAULT)),
        ("default", unknown(DEFAULT)),
        ("", unknown(DEFAULT)),
        // Not allowed in SNI, and sent all the same.
        ("192.0.2.7", known(PAY)),
        ("192.0.2.8", known(DEFAULT)),
    ];
    for (name, (by_default, strictly)) in rows {
        assert_eq!(identity.choose(&[], Some(name), None, Default), by_default, "{name}");
        assert_eq!(identity.choose(&[], Some(name), None, Refuse), strictly, "{name}");
    }
}

/// Who asks for no name has come by address: it is never an unknown name.
#[test]
fn without_a_name_the_address_chooses() {
    let identity = four();
    let rows = [(None, DEFAULT), (Some("192.0.2.7"), PAY), (Some("2001:db8:0::7"), PAY), (Some("192.0.2.8"), DEFAULT)];
    for (address, expected) in rows {
        let address = address.map(|address| address.parse::<IpAddr>().expect("an address"));
        for unknown in [Default, Refuse] {
            assert_eq!(identity.choose(&[], None, address, unknown), Ok(expected), "{address:?}");
        }
    }
}

#[test]
fn a_host_belongs_to_the_certificate_that_was_shown() {
    let identity = four();
    let (fine, wrong) = (false, true);
    // Which was shown, the host, and whether it is misdirected: where unknown names get the default, and where not.
    let rows = [
        (SHOP, "shop.example", fine, fine),
        (SHOP, "shop.example:8443", fine, fine),
        (SHOP, "SHOP.Example.", fine, fine),
        (SHOP, "a.shop.example", fine, fine),
        // Its name by the wildcard, though a client that asked for it would be shown another.
        (SHOP, "orders.shop.example", fine, fine),
        (ORDERS, "orders.shop.example", fine, fine),
        (ORDERS, "a.shop.example", wrong, wrong),
        (SHOP, "b.a.shop.example", wrong, wrong),
        (SHOP, "pay.example", wrong, wrong),
        (SHOP, "other.example", wrong, wrong),
        (SHOP, "192.0.2.8", wrong, wrong),
        (PAY, "192.0.2.7:443", fine, fine),
        (PAY, "[2001:db8::7]:443", fine, fine),
        (PAY, "[2001:db8::8]", wrong, wrong),
        (DEFAULT, "other.example", fine, wrong),
        (DEFAULT, "192.0.2.8:8443", fine, fine),
        (DEFAULT, "[::1]:8443", fine, fine),
        (DEFAULT, "shop.example", wrong, wrong),
        (DEFAULT, "192.0.2.7", wrong, wrong),
    ];
    for (shown, host, by_default, strictly) in rows {
        let certificate = &identity.certificates[shown];
        assert_eq!(identity.is_misdirected(&[], certificate, host, Default), by_default, "{shown} {host}");
        assert_eq!(identity.is_misdirected(&[], certificate, host, Refuse), strictly, "{shown} {host}");
    }
}

#[test]
fn one_certificate_is_for_every_host_unless_unknown_names_are_refused() {
    let one = accepted(&[("only", &["only.example"], &[])]);
    let rows = [("only.example", false, false), ("other.example", false, true), ("10.0.0.1:8443", false, false)];
    for (host, by_default, strictly) in rows {
        assert_eq!(one.is_misdirected(&[], &one.certificates[0], host, Default), by_default, "{host}");
        assert_eq!(one.is_misdirected(&[], &one.certificates[0], host, Refuse), strictly, "{host}");
    }
    // A connection from before a change was shown a certificate that is not there any more.
    let before = four();
    assert!(one.is_misdirected(&[], &before.certificates[SHOP], "only.example", Default));
    assert!(!one.is_misdirected(&[], &before.certificates[SHOP], "shop.example", Default));
    assert!(!one.is_misdirected(&[], &before.certificates[DEFAULT], "shop.example", Default));
}

/// The default, one for every listener, and three that listeners name: the first of them has no name of a host.
fn named() -> AcceptedIdentity {
    let table: [(&str, &[&str], &[&str]); 5] = [
        ("ours", &["orders.shop.svc"], &[]),
        ("shared", &["shop.example"], &[]),
        ("device", &[], &[]),
        ("web", &["*.shop.svc", "web.example"], &["192.0.2.7"]),
        ("old-web", &["web.example", "shop.example"], &[]),
    ];
    accepted_with(&table, |document| {
        for (index, name) in [(1, "demo/device"), (2, "demo/web"), (3, "demo/old-web")] {
            document["certificates"][index]["name"] = json!(name);
        }
    })
}

#[test]
fn a_listener_shows_its_own_certificates_before_all_others() {
    let identity = named();
    let (ours, shared, device, web, old_web) = (0, 1, 2, 3, 4);
    let rows: [(&[usize], Option<&str>, usize); 14] = [
        // What a listener has not named it does not show.
        (&[], Some("web.example"), ours),
        (&[], None, ours),
        (&[], Some("shop.example"), shared),
        (&[web], Some("web.example"), web),
        // Its own, by a wildcard too, before the very name of another.
        (&[web], Some("orders.shop.svc"), web),
        (&[old_web], Some("shop.example"), old_web),
        (&[old_web], Some("orders.shop.svc"), ours),
        (&[web], Some("shop.example"), shared),
        // The first is for whoever asks for no name, or for one that nobody has.
        (&[web], Some("other.example"), web),
        (&[web, device], None, web),
        (&[device, web], None, device),
        (&[device, web], Some("other.example"), device),
        (&[device, old_web, web], Some("web.example"), old_web),
        (&[device, web], Some("web.example"), web),
    ];
    for (own, name, expected) in rows {
        assert_eq!(identity.choose(own, name, None, Default), Ok(expected), "{own:?} {name:?}");
    }
    let address = Some("192.0.2.7".parse().expect("an address"));
    assert_eq!(identity.choose(&[device, web], None, address, Default), Ok(web));
    assert_eq!(identity.choose(&[device], None, address, Default), Ok(device));
    assert_eq!(identity.choose(&[device], Some("other.example"), None, Refuse), Err(Reason::TlsUnknownSni));
    // Which hosts belong to which of them: own, shown, host, whether it is misdirected.
    let rows: [(&[usize], usize, &str, bool); 8] = [
        (&[web], web, "a.shop.svc", false),
        (&[web], web, "other.example", false),
        (&[web], shared, "other.example", true),
        (&[web], web, "shop.example", true),
        (&[web], ours, "web.example", true),
        (&[device, web], device, "other.example", false),
        (&[device, web], web, "other.example", true),
        // A connection from before the listener had one of its own.
        (&[web], ours, "other.example", false),
    ];
    for (own, shown, host, expected) in rows {
        let certificate = &identity.certificates[shown];
        assert_eq!(identity.is_misdirected(own, certificate, host, Default), expected, "{own:?} {shown} {host}");
    }
    assert!(identity.is_misdirected(&[web], &identity.certificates[web], "other.example", Refuse));
}
