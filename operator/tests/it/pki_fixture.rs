//! Authorities as they are made, and openssl, which was written by others.

use std::fs;
use std::process::Command;

use postern_operator::pki::authority::{AuthoritySettings, Files, INTERMEDIATE_SECONDS, Issuer, ROOT_SECONDS, Root};
use postern_operator::pki::fresh;
use postern_operator::pki::issue::{CLIENT_SECONDS, Leaf, Request, Usage, leaf};
use postern_operator::pki::key::{Algorithm, PrivateKey};
use postern_operator::pki::names::{Asked, Names};

/// When all of it happens: 2026-09-21T14:13:20Z.
pub(crate) const NOW: i64 = 1_790_000_000;

pub(crate) const DAY: i64 = 86_400;

/// A root, an intermediate, and what their Secrets hold.
pub(crate) struct Made {
    pub(crate) root_files: Files,
    pub(crate) root: Root,
    pub(crate) intermediate_files: Files,
    pub(crate) issuer: Issuer,
}

pub(crate) fn settings(algorithm: Algorithm) -> AuthoritySettings {
    AuthoritySettings {
        algorithm,
        root_seconds: ROOT_SECONDS,
        intermediate_seconds: INTERMEDIATE_SECONDS,
        organisation: "demo.local".into(),
    }
}

pub(crate) fn key(algorithm: Algorithm) -> PrivateKey {
    fresh::key(algorithm).expect("a key")
}

/// What the operator makes at its first start.
pub(crate) fn made(algorithm: Algorithm) -> Made {
    let settings = settings(algorithm);
    let serial = || fresh::serial().expect("a serial number");
    let root_files = Root::make(&settings, key(algorithm), serial(), NOW).expect("a root");
    let root = Root::read(&root_files, NOW).expect("the root reads");
    let intermediate_files =
        root.make_intermediate(&settings, &key(algorithm), serial(), NOW).expect("an intermediate");
    let issuer = Issuer::read(&intermediate_files, &root, NOW).expect("the intermediate reads");
    Made { root_files, root, intermediate_files, issuer }
}

pub(crate) fn names() -> Names {
    Names { trust_domain: "demo.local".into(), cluster_domain: "cluster.local".into(), extra: [].into() }
}

/// What a client asks for.
pub(crate) fn request() -> Request {
    Request {
        spiffe_id: names().client("shop", "billing"),
        names: Asked {
            common_name: Some("billing".into()),
            uris: Vec::new(),
            dns_names: vec!["billing.shop.svc".into(), "billing.shop.svc.cluster.local".into()],
        },
        usage: Usage::Client,
        duration_seconds: CLIENT_SECONDS,
        accept_issued_after: None,
    }
}

/// A certificate that was issued, and its key.
pub(crate) fn issued(issuer: &Issuer, request: &Request, algorithm: Algorithm) -> (Leaf, PrivateKey) {
    let key = key(algorithm);
    let serial = fresh::serial().expect("a serial number");
    (leaf(issuer, request, &key.public(), serial, NOW).expect("a leaf"), key)
}

/// Runs openssl on some files, each of which is named in `arguments` as `{name}`, and gives what it printed. `Err` where
/// it failed.
pub(crate) fn openssl(arguments: &str, files: &[(&str, &[u8])]) -> Result<String, String> {
    run("openssl", arguments, files)
}

/// The same with another program.
pub(crate) fn run(program: &str, arguments: &str, files: &[(&str, &[u8])]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    let arguments = arguments.split_whitespace().map(|argument| {
        let name = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.map_or_else(|| argument.to_owned(), |name| folder.path().join(name).display().to_string())
    });
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Whether openssl verifies a chain under a root for a purpose (`sslclient`, `sslserver`) at a time.
pub(crate) fn verifies(roots: &str, chain: &str, purpose: &str, at: i64) -> Result<String, String> {
    let arguments =
        format!("verify -attime {at} -x509_strict -purpose {purpose} -CAfile {{roots}} -untrusted {{chain}} {{chain}}");
    openssl(&arguments, &[("roots", roots.as_bytes()), ("chain", chain.as_bytes())])
}

/// What openssl reads in a certificate.
pub(crate) fn text_of(certificate: &[u8]) -> String {
    openssl("x509 -noout -text -in {c}", &[("c", certificate)]).expect("openssl reads it")
}

/// The lines of a text that contain a word, without white space around them.
pub(crate) fn line_after<'a>(text: &'a str, heading: &str) -> &'a str {
    let mut lines = text.lines().skip_while(|line| !line.contains(heading));
    lines.next();
    lines.next().unwrap_or_default().trim()
}
