//! Normalisation of paths: every known trick, with what exactly comes out.

use std::borrow::Cow;

use sidecar_decide::Reason;
use sidecar_decide::path::normalise;

/// Paths that are accepted and stay as they are.
const UNCHANGED: &[&str] = &[
    "/",
    "/orders",
    "/orders/",
    "/orders/7",
    "/orders/7/lines/",
    "/.well-known/acme-challenge/x",
    "/.env",
    "/..hidden",
    "/...",
    "/..../x",
    "/a.",
    "/a..",
    "/a../b",
    "/a./b",
    "/a..b/c",
    "/a~b_c-d.e",
    "/a;v=1/b",
    "/;x",
    "/a;..",
    "/v1/users:batch",
    "/@me",
    "/a!b$c&d'e(f)g*h+i,j=k",
    "/*",
    "/a%20b",
    "/a%25b",
    // Encoded twice: an application that decodes once sees text, which is what the gate sees.
    "/%252e%252e/a",
    "/%252f",
    "/%255c",
    "/%2500",
    "/%2541",
    "/caf%C3%A9",
    "/%E2%82%AC",
    "/%F0%9F%94%92",
    "/%EF%BC%8F",
    "/%E9",
    "/%C0",
    "/%C0a",
    "/%C0%C1",
    "/%E0%A0%80",
    "/%E0",
    "/%F0%90%80%80",
    "/%FF",
    "/%0D%0A",
    "/%7F",
    "/%3Fa%23b",
    "/%3B",
    "/a%3Bb",
    "/%3A%40%21%24%26%27%28%29%2A%2B%2C%3D",
    "/%5B%5D%7B%7D%7C",
];

/// Paths that are accepted and change.
const CHANGED: &[(&str, &str)] = &[
    ("//", "/"),
    ("///", "/"),
    ("/.", "/"),
    ("/./", "/"),
    ("/./.", "/"),
    ("//orders", "/orders"),
    ("/orders//", "/orders/"),
    ("/orders//7", "/orders/7"),
    ("/orders///7//", "/orders/7/"),
    ("/orders/.", "/orders/"),
    ("/orders/./", "/orders/"),
    ("/orders/./7", "/orders/7"),
    ("/./orders", "/orders"),
    ("/a/..", "/"),
    ("/a/../", "/"),
    ("/a/../b", "/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/../", "/a/"),
    ("/a/b/../c", "/a/c"),
    ("/a/b/../../c", "/c"),
    ("/a/./../b", "/b"),
    ("/a/.././b/", "/b/"),
    // Empty segments go first, so that a parent segment never takes one of them for its own.
    ("/a//../b", "/b"),
    ("/a/b//..//../c", "/c"),
    ("/a/b/c/../../..", "/"),
    ("/a/.../..", "/a/"),
    ("/.a/../b", "/b"),
    ("/*/../b", "/b"),
    // One spelling of every byte (RFC 3986 §6.2.2).
    ("/%61dmin", "/admin"),
    ("/%41%5A%30%39", "/AZ09"),
    ("/%7euser", "/~user"),
    ("/%7Euser", "/~user"),
    ("/a%2Db%5Fc", "/a-b_c"),
    ("/a%2eb", "/a.b"),
    ("/a%2E", "/a."),
    ("/a%2e%2e", "/a.."),
    ("/%2ewell-known", "/.well-known"),
    ("/%2e%2e%2e", "/..."),
    ("/.%2E.", "/..."),
    ("/%2e%2ea", "/..a"),
    ("/caf%c3%a9", "/caf%C3%A9"),
    ("/caf\u{e9}", "/caf%C3%A9"),
    ("/\u{20ac}", "/%E2%82%AC"),
    ("/\u{ff0f}etc", "/%EF%BC%8Fetc"),
    ("/\u{2025}/a", "/%E2%80%A5/a"),
    ("/\u{85}", "/%C2%85"),
    ("/\u{202e}x", "/%E2%80%AEx"),
    ("/\u{feff}", "/%EF%BB%BF"),
    ("/a|b", "/a%7Cb"),
    ("/\"<>[]^`{}", "/%22%3C%3E%5B%5D%5E%60%7B%7D"),
    ("/a%3bb", "/a%3Bb"),
    ("/a%3a", "/a%3A"),
    ("/a%fe", "/a%FE"),
    ("/%25%36%31", "/%2561"),
    ("/%61/../%62//", "/b/"),
    ("/x/./%7e/../%c3%a9", "/x/%C3%A9"),
];

/// Paths that no rule ever sees.
const REFUSED: &[&str] = &[
    // Not absolute.
    "",
    "*",
    "orders",
    "orders/",
    ".",
    "..",
    "./",
    "../a",
    "%2F",
    " /",
    "http://orders/",
    "?",
    "\\",
    // Above the root.
    "/..",
    "/../",
    "/../a",
    "/a/../..",
    "/a/../../b",
    "/./..",
    "//..",
    "//../a",
    "/a//../..",
    "/a/b/../../../etc/passwd",
    // Encoded separators and NUL.
    "/%2f",
    "/%2F",
    "/a%2fb",
    "/a%2Fb",
    "/..%2f",
    "/..%2Fa",
    "/%2f..",
    "/%5c",
    "/%5C",
    "/a%5cb",
    "/a%5Cb",
    "/..%5c",
    "/%00",
    "/a%00",
    "/a%00.png",
    // Encoded dot segments.
    "/%2e",
    "/%2E",
    "/%2e/",
    "/%2e/a",
    "/%2e%2e",
    "/%2E%2E",
    "/%2e%2E/",
    "/.%2e",
    "/.%2E/a",
    "/%2e.",
    "/%2e./a",
    "/a/%2e%2e/b",
    "/a/.%2e/b",
    "/a/%2e./b",
    "/a/%2e/b",
    // Dot segments with parameters.
    "/..;",
    "/..;x",
    "/..;/a",
    "/a/..;/b",
    "/a/..;x=1/b",
    "/.;",
    "/.;x/a",
    "/a/.;/b",
    "/%2e%2e;",
    "/%2e%2e;x/a",
    "/.%2e;/a",
    "/..%3b",
    "/..%3B/a",
    "/.%3bx",
    "/%2e%2e%3bx",
    // Overlong UTF-8.
    "/%c0%ae",
    "/%C0%AE%C0%AE/a",
    "/%c0%af",
    "/..%c0%af",
    "/%C1%9C",
    "/%c0%80",
    "/%e0%80%af",
    "/%E0%80%AE",
    "/%f0%80%80%af",
    "/%E0%9F%BF",
    "/%F0%8F%BF%BF",
    "/%C1%BF",
    // Bytes that no path may hold.
    "/a\\b",
    "/..\\a",
    "/\\",
    "/a b",
    "/ ",
    "/a\tb",
    "/a\r\nHost: b",
    "/a\n",
    "/\0",
    "/a\0b",
    "/\u{1}",
    "/\u{1f}",
    "/\u{7f}",
    "/a?b",
    "/a?",
    "/a#b",
    "/#",
    // Percent signs that encode nothing.
    "/%",
    "/a%",
    "/%2",
    "/%a",
    "/%%",
    "/%%32%65",
    "/%zz",
    "/%0g",
    "/%g0",
    "/% 2",
    "/%+1",
    "/%-1",
    "/%u002f",
    "/%u2215",
    "/%2/f",
    "/%\u{e9}",
    "/a/%",
    // What is dropped by a later segment is looked at all the same.
    "/%2f/../a",
    "/a b/../c",
    "/%zz/..",
];

fn borrowed(path: &str) -> bool {
    matches!(normalise(path), Ok(Cow::Borrowed(normal)) if normal == path)
}

#[test]
fn normal_paths_stay_and_are_not_copied() {
    for path in UNCHANGED {
        assert_eq!(normalise(path).as_deref(), Ok(*path));
        assert!(borrowed(path), "{path:?} was copied");
    }
}

#[test]
fn other_paths_get_one_spelling() {
    for (path, normal) in CHANGED {
        assert_eq!(normalise(path).as_deref(), Ok(*normal), "{path:?}");
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    for path in REFUSED {
        assert_eq!(normalise(path), Err(Reason::RouteBadPath), "{path:?}");
    }
}

#[test]
fn normalising_twice_changes_nothing_more() {
    for path in UNCHANGED.iter().chain(CHANGED.iter().map(|(path, _)| path)) {
        let once = normalise(path).expect("an accepted path");
        assert!(borrowed(&once), "{path:?} became {once:?}, which is not normal");
    }
}

/// Every path of up to six of these pieces: what is accepted holds nothing that climbs, hides or repeats.
#[test]
fn accepted_paths_are_normal_whatever_they_are_made_of() {
    const PIECES: [&str; 9] = ["/", ".", "a", "%2e", "%2F", ";", "%3B", "%61", "\u{e9}"];
    let mut accepted = 0;
    for number in 0..PIECES.len().pow(6) {
        let mut path = String::from("/");
        let mut rest = number;
        while rest > 0 {
            path.push_str(PIECES[rest % PIECES.len()]);
            rest /= PIECES.len();
        }
        let Ok(normal) = normalise(&path) else { continue };
        accepted += 1;
        let segments: Vec<_> = normal[1..].split('/').collect();
        let bad = |(index, segment): (usize, &&str)| match *segment {
            "." | ".." => true,
            "" => index + 1 != segments.len(),
            other => !other.is_ascii() || other.starts_with(".;") || other.starts_with("..;") || other.contains("%2"),
        };
        assert_eq!(segments.iter().enumerate().find(|entry| bad(*entry)), None, "{path:?} became {normal:?}");
        assert!(borrowed(&normal), "{path:?} became {normal:?}, which is not normal");
    }
    // Frozen: a rule that lets more or fewer of them through is noticed.
    assert_eq!(accepted, 219_490);
}

/// Longer than any request head: work that grew with the square of it would not end in this test's time.
#[test]
fn long_paths_are_normalised_in_one_pass() {
    let rows = [
        ("a", "a"),
        ("a/", "a/"),
        ("%2ea", ".a"),
        (".a", ".a"),
        ("%61", "a"),
        ("/", ""),
        ("./", ""),
        ("a/../", ""),
        ("..a/", "..a/"),
        ("%E2%82%AC", "%E2%82%AC"),
    ];
    for (piece, becomes) in rows {
        let count = (1 << 20) / piece.len();
        let path = format!("/{}", piece.repeat(count));
        let normal = format!("/{}", becomes.repeat(count));
        assert!(normalise(&path).as_deref() == Ok(normal.as_str()), "{piece:?} repeated");
    }
    let climbs = format!("/{}", "../".repeat(1 << 18));
    assert_eq!(normalise(&climbs), Err(Reason::RouteBadPath));
}
