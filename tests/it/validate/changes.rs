//! Bad values, one by one, and what is said of each.

/// Where a document is changed, to what, and what `validate` says of it.
pub(super) const CHANGES: &[(&str, &str, &str)] = &[
    (
        "/trust/bundles/ours/roots",
        "[]",
        "`trust.bundles.ours.roots`: is empty; name at least one PEM file with a root certificate",
    ),
    (
        "/trust/bundles/ours/roots",
        r#"["absent.pem"]"#,
        "`trust.bundles.ours.roots[0]`: `absent.pem`: cannot be read: No such file or directory (os error 2)",
    ),
    (
        "/trust/bundles/ours/roots",
        r#"["server.key"]"#,
        "`trust.bundles.ours.roots[0]`: `server.key` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it",
    ),
    (
        "/trust/bundles/ours/roots",
        r#"["server.pem"]"#,
        "`trust.bundles.ours.roots`: `CN=gate` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be roots",
    ),
    (
        "/trust/bundles/ours/vouchesFor/spiffe",
        r#"["Demo.local"]"#,
        "`trust.bundles.ours.vouchesFor.spiffe[0]`: `Demo.local` is not a trust domain; write its name alone and in lower case, such as `demo.local`",
    ),
    (
        "/trust/revocations/identities/0/state",
        r#""Gone""#,
        "`trust.revocations.identities[0].state`: unknown variant `Gone`, expected `Suspended` or `Revoked`",
    ),
    (
        "/identity/key",
        r#""other.key""#,
        "`identity.key`: is not the key of `CN=gate` in `server.pem`; write the chain with its leaf first, and the key that leaf was issued for",
    ),
    (
        "/identity/key",
        r#""absent.key""#,
        "`identity.key`: `absent.key`: cannot be read: No such file or directory (os error 2)",
    ),
    (
        "/identity/chain",
        r#""absent.pem""#,
        "`identity.chain`: `absent.pem`: cannot be read: No such file or directory (os error 2)",
    ),
    (
        "/identities/1/name",
        r#""demo/billing""#,
        "`identities[1].name`: `demo/billing` is taken by an earlier identity; names are unique",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours"}"#,
        "`identities[0].recognise[0]`: has 0 claims; write exactly one of uri, dnsName, commonName, fingerprint, lfdi, sfdi, serial, spki",
    ),
    (
        "/identities/0/recognise/0/bundle",
        r#""absent""#,
        "`identities[0].recognise[0].bundle`: there is no bundle `absent`; name one of trust.bundles",
    ),
    (
        "/policy/limits",
        r#"{"maxConnections": 0}"#,
        "`policy.limits.maxConnections`: is 0; write a number from 1 to 1000000",
    ),
    (
        "/policy/limits",
        r#"{"maxRequestBodySize": "1MB"}"#,
        "`policy.limits.maxRequestBodySize`: `1MB` is not a size; write digits with Ki, Mi or Gi, such as `256Mi`",
    ),
    (
        "/policy/listeners/0/address",
        r#""8443""#,
        "`policy.listeners[0].address`: `8443` is not an address and port; write it in numbers, such as `127.0.0.1:8080` or `[::1]:8080`",
    ),
    (
        "/policy/listeners/0/tls/trust",
        r#"["absent"]"#,
        "`policy.listeners[0].tls.trust[0]`: there is no bundle `absent`; name one of trust.bundles",
    ),
    (
        "/policy/routes/0/listener",
        r#""absent""#,
        "`policy.routes[0].listener`: there is no listener `absent`; name one of policy.listeners",
    ),
    (
        "/policy/routes/0/hostnames",
        r#"["*example"]"#,
        "`policy.routes[0].hostnames[0]`: `*example` has a wildcard that is not its whole first label; write `*.example.com` for all names below one, or leave hostnames empty for any host",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"path": {"type": "Exact", "value": "/a/../b"}}"#,
        "`policy.routes[0].rules[0].matches[0].path.value`: `/a/../b` would never match; write it as requests are normalised, `/b`",
    ),
    (
        "/policy/routes/0/rules/0/matches/0/method",
        r#""get""#,
        "`policy.routes[0].rules[0].matches[0].method`: `get` is not a method; write it in upper case, such as `GET`",
    ),
    (
        "/policy/routes/0/rules/0/allow",
        "[]",
        "`policy.routes[0].rules[0].allow`: is empty; name who may call, or write `[{ anyone = {} }]`: absence never means anyone",
    ),
    (
        "/policy/routes/0/rules/0/allow/0/identity",
        r#""demo/absent""#,
        "`policy.routes[0].rules[0].allow[0]`: there is no identity `demo/absent`; name one of identities",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"verified": "absent"}"#,
        "`policy.routes[0].rules[0].allow[0]`: there is no bundle `absent`; name one of trust.bundles",
    ),
    (
        "/policy/routes/0/rules/0/backends/0",
        r#"{"endpoints": "absent"}"#,
        "`policy.routes[0].rules[0].backends[0].endpoints`: there is no set of endpoints `absent`; name one of endpoints",
    ),
    (
        "/policy/routes/0/rules/0/backends",
        "[]",
        "`policy.routes[0].rules[0].backends`: is empty; name at least one address or set of endpoints",
    ),
    (
        "/policy/routes/0/rules/0/mode",
        r#""Watch""#,
        "`policy.routes[0].rules[0].mode`: unknown variant `Watch`, expected `Enforce` or `Audit`",
    ),
    (
        "/policy/routes/0/rules/0/priority",
        "1",
        "`policy.routes[0].rules[0].priority`: unknown field `priority`, expected one of `name`, `matches`, `allow`, `mode`, `filters`, `backends`, `timeouts`",
    ),
    (
        "/policy/routes/0/rules/0/name",
        "7",
        "`policy.routes[0].rules[0].name`: invalid type: integer `7`, expected a string",
    ),
    (
        "/endpoints",
        r#"[{"name": "a"}, {"name": "a"}]"#,
        "`endpoints[1].name`: `a` is taken by an earlier set; names are unique",
    ),
    (
        "/trust/bundles/ours/vouchesFor/spiffe",
        r#"["spiffe://demo.local"]"#,
        "`trust.bundles.ours.vouchesFor.spiffe[0]`: `spiffe://demo.local` is not a trust domain; write its name alone and in lower case, such as `demo.local`",
    ),
    (
        "/trust/bundles/ours/roots",
        r#"["broken.pem"]"#,
        "`trust.bundles.ours.roots[0]`: `broken.pem`: not an X.509 certificate: Parsing Error: Der(UnexpectedTag { expected: Some(Tag(16)), actual: Tag(0) }); write it again",
    ),
    (
        "/trust/bundles/ours/roots",
        r#"["empty.pem"]"#,
        "`trust.bundles.ours.roots[0]`: `empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it",
    ),
    ("/trust/bundles/ours/roots", r#"["."]"#, "`trust.bundles.ours.roots[0]`: `.`: is not a file; name one"),
    (
        "/trust/bundles/ours/roots",
        r#""ca.pem""#,
        r#"`trust.bundles.ours.roots`: invalid type: string "ca.pem", expected a sequence"#,
    ),
    (
        "/trust/bundles",
        r#"{"two words": {"roots": ["ca.pem"]}}"#,
        "`trust.bundles.two words`: the name has ' ' in it; leave out white space and control characters",
    ),
    (
        "/trust/revocations/identities",
        r#"[{"name": "demo/billing"}]"#,
        "`trust.revocations.identities[0]`: has neither state nor acceptIssuedAfter, so nothing is revoked; write at least one",
    ),
    (
        "/trust/revocations/identities",
        r#"[{"name": "a", "state": "Revoked"}, {"name": "a", "state": "Suspended"}]"#,
        "`trust.revocations.identities[1].name`: `a` is listed twice; keep one entry",
    ),
    (
        "/trust/revocations/identities/0",
        r#"{"name": "a", "acceptIssuedAfter": "yesterday"}"#,
        "`trust.revocations.identities[0].acceptIssuedAfter`: `yesterday` is not a time; write it in UTC and to the second, such as `2026-11-20T00:00:00Z`",
    ),
    (
        "/trust/revocations/serials",
        r#"[{"bundle": "absent", "serial": "5a"}]"#,
        "`trust.revocations.serials[0].bundle`: there is no bundle `absent`; name one of trust.bundles",
    ),
    (
        "/trust/revocations/serials",
        r#"[{"bundle": "ours", "serial": "5g"}]"#,
        "`trust.revocations.serials[0].serial`: `5g` is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`",
    ),
    (
        "/identity/chain",
        r#""empty.pem""#,
        "`identity.chain`: `empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it",
    ),
    (
        "/identity/chain",
        r#""broken.pem""#,
        "`identity.chain`: `broken.pem`: not an X.509 certificate: Parsing Error: Der(UnexpectedTag { expected: Some(Tag(16)), actual: Tag(0) }); write it again",
    ),
    (
        "/identity/key",
        r#""ca.pem""#,
        "`identity.key`: `ca.pem`: holds no private key (no items found); put a PEM block `BEGIN PRIVATE KEY` into it",
    ),
    (
        "/identities/0/recognise",
        "[]",
        "`identities[0].recognise`: is empty, so nobody would ever be this identity; add a recogniser",
    ),
    (
        "/identities/0/name",
        r#""demo billing""#,
        "`identities[0].name`: has ' ' in it; leave out white space and control characters",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "fingerprint": "sha1:00"}"#,
        "`identities[0].recognise[0].fingerprint`: `sha1:00` is not a fingerprint; write `sha256:` and 64 hex digits",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "lfdi": "3e4f"}"#,
        "`identities[0].recognise[0].lfdi`: `3e4f` is not an LFDI; write 40 hex digits",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "sfdi": "167261211390"}"#,
        "`identities[0].recognise[0].sfdi`: `167261211390` is not an SFDI: its last digit does not make the sum of its digits a multiple of ten; compare them",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "serial": "0x5a"}"#,
        "`identities[0].recognise[0].serial`: `0x5a` is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "spki": "00"}"#,
        "`identities[0].recognise[0].spki`: `00` is not the digest of a public key; write `sha256:` and 64 hex digits",
    ),
    (
        "/identities/0/recognise/0",
        r#"{"bundle": "ours", "commonName": "billing"}"#,
        "`identities[0].recognise[0]`: bundle `ours` does not vouch for common names; set trust.bundles.ours.vouchesFor.commonName or use another claim",
    ),
    (
        "/identities/0/recognise/0/uri",
        r#""spiffe://other.local/billing""#,
        "`identities[0].recognise[0]`: bundle `ours` does not vouch for SPIFFE trust domain `other.local`; add it to trust.bundles.ours.vouchesFor.spiffe if it is theirs",
    ),
    (
        "/identities/1/recognise/0/uri",
        r#""spiffe://demo.local/ns/demo/client/billing""#,
        "`identities[1].recognise[0]`: another identity claims the same under this bundle, so neither is recognised by it; remove one",
    ),
    (
        "/policy/listeners/0/tls/minVersion",
        r#""1.1""#,
        "`policy.listeners[0].tls.minVersion`: unknown variant `1.1`, expected `1.2` or `1.3`",
    ),
    (
        "/policy/listeners/0/tls/clientAuth",
        r#""Maybe""#,
        "`policy.listeners[0].tls.clientAuth`: unknown variant `Maybe`, expected one of `Required`, `Optional`, `None`",
    ),
    (
        "/policy/listeners/1",
        r#"{"name": "gate", "address": "127.0.0.1:8444", "protocol": "HTTPS", "tls": {"trust": []}}"#,
        "`policy.listeners[1].name`: `gate` is taken by an earlier listener; names are unique",
    ),
    (
        "/policy/listeners",
        r#"[{"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}}, {"name": "two", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}}]"#,
        "`policy.listeners[1].address`: 127.0.0.1:8443 is taken by an earlier listener; choose another port",
    ),
    (
        "/identities/0/recognise/0/email",
        r#""a@b""#,
        "`identities[0].recognise[0].email`: unknown field `email`, expected one of `bundle`, `uri`, `dnsName`, `commonName`, `fingerprint`, `lfdi`, `sfdi`, `serial`, `spki`",
    ),
    ("/identities/0", r#"{"name": "demo/billing"}"#, "`identities[0]`: missing field `recognise`"),
    ("/policy/routes/0/name", r#""""#, "`policy.routes[0].name`: is empty; give it a name"),
    (
        "/policy/routes/1",
        r#"{"name": "demo/orders", "listener": "gate", "rules": []}"#,
        "`policy.routes[1].name`: `demo/orders` is taken by an earlier route; names are unique",
    ),
    (
        "/policy/routes/0/rules/1",
        r#"{"name": "all", "allow": [{"anyone": {}}], "backends": [{"address": "127.0.0.1:80"}]}"#,
        "`policy.routes[0].rules[1].name`: `all` is taken by an earlier rule; names are unique",
    ),
    (
        "/policy/routes/0/hostnames",
        r#"["a.*.example"]"#,
        "`policy.routes[0].hostnames[0]`: `a.*.example` has a wildcard that is not its whole first label; write `*.example.com` for all names below one, or leave hostnames empty for any host",
    ),
    (
        "/policy/routes/0/hostnames",
        r#"["localhost:8443"]"#,
        "`policy.routes[0].hostnames[0]`: `localhost:8443` is not a host name; write it without scheme, port and path",
    ),
    (
        "/policy/routes/0/hostnames",
        r#"["https://localhost"]"#,
        "`policy.routes[0].hostnames[0]`: `https://localhost` is not a host name; write it without scheme, port and path",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"path": {"type": "PathPrefix", "value": "orders"}}"#,
        "`policy.routes[0].rules[0].matches[0].path.value`: `orders` would never match; write an absolute path without query, encoded separators or dot segments above the root",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"path": {"type": "Template", "value": "/a/{"}}"#,
        "`policy.routes[0].rules[0].matches[0].path.value`: `/a/{` is not a template; a parameter is a whole segment; write `%7B` and `%7D` for braces of the path",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"path": {"type": "RegularExpression", "value": "("}}"#,
        "`policy.routes[0].rules[0].matches[0].path.value`: `(` is not a regular expression: unclosed group",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"headers": [{"name": "Host", "value": "a"}]}"#,
        "`policy.routes[0].rules[0].matches[0].headers[0].name`: `host` is no condition; use the route's hostnames",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"headers": [{"name": "a b", "value": "a"}]}"#,
        "`policy.routes[0].rules[0].matches[0].headers[0].name`: `a b` is not the name of a header field; write it as in `X-Tenant`",
    ),
    (
        "/policy/routes/0/rules/0/matches/0",
        r#"{"queryParams": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}"#,
        "`policy.routes[0].rules[0].matches[0].queryParams[1].name`: `a` is named before in this match; write one condition for each name",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"spiffe": "demo.local/x"}"#,
        "`policy.routes[0].rules[0].allow[0].spiffe`: `demo.local/x` is not a SPIFFE ID; write one such as `spiffe://demo.local/ns/shop/sa/front`, or end it in `/*` for all below it",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"spiffe": "spiffe://other.local/*"}"#,
        "`policy.routes[0].rules[0].allow[0]`: no bundle vouches for SPIFFE trust domain `other.local`; add it to trust.bundles.NAME.vouchesFor.spiffe of the bundle whose it is",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"serviceAccount": {"namespace": "a"}}"#,
        "`policy.routes[0].rules[0].allow[0].serviceAccount`: missing field `name`",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"identitySelector": {"matchLabels": {}}}"#,
        "`policy.routes[0].rules[0].allow[0].identitySelector.matchLabels`: is empty, which would choose every identity; write a label",
    ),
    (
        "/policy/routes/0/rules/0/allow/0",
        r#"{"identity": "demo/billing", "verified": "ours"}"#,
        "`policy.routes[0].rules[0].allow[0]`: invalid value: map, expected map with a single key",
    ),
    (
        "/policy/routes/0/rules/0/backends/0",
        r#"{"address": "localhost:80"}"#,
        "`policy.routes[0].rules[0].backends[0].address`: `localhost:80` is not an address and port; write it in numbers, such as `127.0.0.1:8080` or `[::1]:8080`",
    ),
    (
        "/policy/routes/0/rules/0/backends/0",
        r#"{}"#,
        "`policy.routes[0].rules[0].backends[0]`: has neither address nor endpoints nor host; write exactly one",
    ),
    (
        "/policy/routes/0/rules/0/backends/0",
        r#"{"address": "127.0.0.1:80", "endpoints": "a"}"#,
        "`policy.routes[0].rules[0].backends[0]`: has several of address, endpoints and host; write exactly one",
    ),
    (
        "/endpoints",
        r#"[{"name": "a", "addresses": ["127.0.0.1:80"]}]"#,
        r#"`endpoints[0].addresses[0]`: invalid type: string "127.0.0.1:80", expected a table such as `{ address = "127.0.0.1:8080" }`"#,
    ),
    ("/endpoints", r#"{"a": []}"#, "`endpoints`: invalid type: map, expected a sequence"),
    ("/settings/stateDir", r#""""#, "`settings.stateDir`: is empty; name a folder, or leave it out to keep nothing"),
    (
        "/settings/admin",
        r#"{ "socket": "" }"#,
        "`settings.admin.socket`: is empty; name a file, or leave it out to have none",
    ),
    (
        "/settings/dns",
        r#"{"servers": ["10.0.0.53:53"], "ndots": 16}"#,
        "`settings.dns.ndots`: write a number from 0 to 15",
    ),
    (
        "/settings/dns",
        r#"{"search": ["a"]}"#,
        "`settings.dns`: search and ndots count only with servers; name some, or leave both to /etc/resolv.conf",
    ),
    ("/settings/log/maxSize", r#""1Ki""#, "`settings.log.maxSize`: write at least `1Mi`"),
    ("/settings/log/flushRows", "0", "`settings.log.flushRows`: write a number from 1 to 8192"),
    ("/settings/workers", "65", "`settings.workers`: write a number from 1 to 64"),
    ("/settings/log/flushEvery", r#""0s""#, "`settings.log.flushEvery`: is zero; write at least `1ms`"),
    (
        "/settings/drainTimeout",
        r#""10""#,
        "`settings.drainTimeout`: `10` is not a duration; write digits with h, m, s or ms, such as `10s`, `100ms` or `1h30m`",
    ),
];
