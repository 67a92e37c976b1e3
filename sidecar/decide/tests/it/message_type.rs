//! Root elements are found however a document begins and comes apart; everything else is `other`.

use std::collections::BTreeSet;

use sidecar_decide::MessageType;
use sidecar_decide::message_type::{LOOKED_AT_MAX, Medium, RootScan};

/// What is found where the document comes in these pieces.
fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<&'static str> {
    let mut scan = RootScan::new();
    for piece in pieces {
        if let Some(found) = scan.feed(piece) {
            return Some(found.name());
        }
    }
    scan.ended().map(MessageType::name)
}

/// The same however it comes apart: at every place in two, and byte by byte.
fn root(document: &[u8]) -> Option<&'static str> {
    let whole = found([document]);
    for at in 0..=document.len() {
        let (one, other) = document.split_at(at);
        assert_eq!(found([one, &[], other]), whole, "{} at {at}", document.escape_ascii());
    }
    assert_eq!(found(document.chunks(1)), whole, "{} by bytes", document.escape_ascii());
    whole
}

#[test]
fn a_root_is_found_behind_whatever_may_come_before_it() {
    let table = [
        "<EndDevice/>",
        "<EndDevice>",
        "<EndDevice xmlns=\"urn:ieee:std:2030.5:ns\">",
        "<EndDevice\n",
        "\u{feff}<EndDevice/>",
        " \r\n\t<EndDevice/>",
        "<s:EndDevice/>",
        "<_:EndDevice/>",
        "<EndDeviceList:EndDevice/>",
        "<größe:EndDevice/>",
        "<?xml version=\"1.0\"?><EndDevice/>",
        "\u{feff}<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<EndDevice/>",
        "<?xml version = \"1.0\" encoding = \"Windows-1252\"?><EndDevice/>",
        "<?xml version=\"1.0\" encoding=\"us-ascii\"?><EndDevice/>",
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><EndDevice/>",
        "<?xml version=\"1.0\" encoding=\"iso-8859-15\"?><EndDevice/>",
        "<!-- <Time> -->\n<!----><EndDevice/>",
        "<!--a-b- c> ?> --><EndDevice/>",
        "<?xml-stylesheet href=\"<Time>\"?><EndDevice/>",
        "<?x?><?y ??><?z > ? > ?><EndDevice/>",
        "<!DOCTYPE EndDevice><EndDevice/>",
        "<!DOCTYPE EndDevice SYSTEM \"a>[<Time>\" ><EndDevice/>",
        "<!DOCTYPE EndDevice PUBLIC '-//x' \"]>\" [] ><!-- x --><EndDevice/>",
        "<!DOCTYPE e [<!ENTITY a \"<Time>]>\"> %b; <!-- ' ]> --> <?p \" ]> ?> <!ATTLIST e f CDATA ']'>]><EndDevice/>",
    ];
    for document in table {
        assert_eq!(root(document.as_bytes()), Some("EndDevice"), "{document}");
    }
}

#[test]
fn what_a_parser_might_read_otherwise_is_other() {
    let table: &[&[u8]] = &[
        b"<Unknown/>",
        b"<EndDevices/>",
        b"<EndDevic/>",
        b"<enddevice/>",
        b"<EndDevice",
        b"<",
        b"{\"EndDevice\": 1}",
        b"text <EndDevice/>",
        b"</EndDevice>",
        b"<:EndDevice/>",
        b"<a:b:EndDevice/>",
        b"<a:/><EndDevice/>",
        b"<1:EndDevice/>",
        b"< EndDevice/>",
        b"\x1f\x8b\x08 compressed",
        b"\xff\xfe<\0E\0n\0d\0D\0e\0v\0i\0c\0e\0>\0",
        b"\xfe\xff\0<\0E\0n\0d\0D\0e\0v\0i\0c\0e\0>",
        b"<\0E\0n\0d\0D\0e\0v\0i\0c\0e\0>\0",
        b"\xef\xbb<EndDevice/>",
        b"\xef\xbb\xbf\xef\xbb\xbf<EndDevice/>",
        b"<?xml version=\"1.0\" encoding=\"UTF-7\"?><EndDevice/>",
        b"<?xml version=\"1.0\" encoding=\"UTF-16\"?><EndDevice/>",
        b"<?xml version=\"1.0\" encoding=\"utf-88\"?><EndDevice/>",
        b"<?xml version=\"1.0\" encoding=\"utf\"?><EndDevice/>",
        b"<?xml version=\"1.0\" encoding=utf-8?><EndDevice/>",
        b"<?xml version=\"1.0\" ? ><EndDevice/>",
        b" <?xml version=\"1.0\"?><EndDevice/>",
        b"<?xml version=\"1.0\"?><?XML version=\"1.0\" encoding=\"UTF-7\"?><EndDevice/>",
        b"<??><EndDevice/>",
        b"<? x?><EndDevice/>",
        b"<!- x --><EndDevice/>",
        b"<!-- a -- b --><EndDevice/>",
        b"<!-- a ---><EndDevice/>",
        b"<!--><EndDevice/> -->",
        b"<!-- <EndDevice/>",
        b"<![CDATA[x]]><EndDevice/>",
        b"<!doctype e><EndDevice/>",
        b"<!DOCTYPEe><EndDevice/>",
        b"<!DOCTYPE e><!DOCTYPE e><EndDevice/>",
        b"<!DOCTYPE e [<!ENTITY a '>]><EndDevice/>",
        b"<!DOCTYPE e [<![IGNORE[ ]]>]><EndDevice/>",
        b"<!DOCTYPE e [ ' ]><EndDevice/>",
        b"<!DOCTYPE e [<EndDevice/>]><EndDevice/>",
        b"<!DOCTYPE e [] x><EndDevice/>",
        b"<!DOCTYPE e <EndDevice/>",
    ];
    for document in table {
        assert_eq!(root(document), Some("other"), "{}", document.escape_ascii());
    }
    assert_eq!(root(b""), None, "an empty body is no message");
}

#[test]
fn no_more_is_looked_at_than_4_kib() {
    let behind = |bytes: usize| [&vec![b' '; bytes][..], b"<Time/>"].concat();
    let bound = usize::from(LOOKED_AT_MAX);
    assert_eq!(bound, 4096);
    // The byte behind the name is looked at, too.
    assert_eq!(found([&*behind(bound - 6)]), Some("Time"));
    assert_eq!(found([&*behind(bound - 5)]), Some("other"));
    let mut scan = RootScan::new();
    assert_eq!(scan.feed(&vec![b' '; bound - 1]), None);
    assert_eq!(scan.feed(b" "), Some(MessageType::OTHER), "it does not wait for more");
    assert!(size_of::<RootScan>() <= 12, "{} bytes of state", size_of::<RootScan>());
}

#[test]
fn every_type_has_a_name_of_its_own() {
    let all: Vec<_> = MessageType::all().collect();
    assert_eq!(all.len(), MessageType::COUNT);
    assert_eq!(all.iter().map(|one| one.name()).collect::<BTreeSet<_>>().len(), MessageType::COUNT);
    for (index, one) in all.iter().enumerate() {
        assert_eq!(one.index(), index);
        assert_eq!(MessageType::named(one.name()), Some(*one), "{one}");
        let document = format!("<{one}>");
        let expected = if one.is_root() { one.name() } else { "other" };
        assert_eq!(root(document.as_bytes()), Some(expected), "{one}");
        for near in [&one.name()[1..], &one.name()[..one.name().len() - 1], &format!("{one}x")] {
            let known = all.iter().any(|other| other.name() == near);
            assert_eq!(MessageType::named(near).is_some(), known, "{near}");
        }
    }
    assert_eq!(all.iter().filter(|one| one.is_root()).count(), 130);
    for name in ["DeviceCapability", "EndDeviceList", "DERControlResponse", "MirrorUsagePoint", "UsagePointList"] {
        assert!(MessageType::named(name).is_some_and(MessageType::is_root), "{name}");
    }
}

#[test]
fn a_medium_is_told_by_its_media_type() {
    let other = Some(Medium::Known(MessageType::OTHER));
    let (json, exi) = (Some(Medium::Known(MessageType::JSON)), Some(Medium::Known(MessageType::EXI)));
    let table = [
        ("application/sep+xml", Some(Medium::Xml)),
        ("Application/SEP+XML; charset=\"UTF-8\"; level=-S1", Some(Medium::Xml)),
        ("text/xml;charset=us-ascii", Some(Medium::Xml)),
        ("application/xml", Some(Medium::Xml)),
        ("application/xml; charset=utf-16", other),
        ("application/xml; charset = utf-7", other),
        ("application/xml; Charset=\"utf-7\"", other),
        ("application/sep-exi", exi),
        ("application/sep-exi; level=-S1", exi),
        ("application/exi", exi),
        ("application/json", json),
        ("application/problem+json; charset=utf-16", json),
        ("text/json", json),
        ("text/html", None),
        ("application/x-www-form-urlencoded", None),
        ("application/octet-stream", None),
        ("application/grpc+proto", None),
        ("xml", None),
        ("application/sepxml", None),
        ("", None),
    ];
    for (content_type, expected) in table {
        assert_eq!(Medium::of(content_type.as_bytes()), expected, "{content_type}");
    }
}
