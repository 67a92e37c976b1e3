//! Keys as others write them: which of them a listener can show.

use std::path::Path;
use std::process::Command;

use postern_operator::references::certificate::Pair;

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let ended = command.args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(ended.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// A self-signed certificate for a key that is made so, and written so.
fn made(key: &str, written: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), &format!("{key} -out made.pem"));
    openssl(folder.path(), "req -x509 -key made.pem -subj /CN=web -days 30 -out web.pem");
    openssl(folder.path(), &format!("{written} -in made.pem -out web.key"));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    (read("web.pem"), read("web.key"))
}

#[test]
fn keys_are_taken_however_they_are_written_if_a_sidecar_takes_them() {
    let genpkey = |rest: &str| format!("genpkey -algorithm {rest}");
    let rsa = |bits: u16| genpkey(&format!("RSA -pkeyopt rsa_keygen_bits:{bits}"));
    let curve = |name: &str| genpkey(&format!("EC -pkeyopt ec_paramgen_curve:{name}"));
    let not_a_key = "`tls.key` is not a private key; put one unencrypted PEM block `PRIVATE KEY` (PKCS#8) there";
    let rows = [
        // cert-manager's own way.
        (rsa(2048), "rsa -traditional", "RSA PRIVATE KEY", None),
        (curve("P-256"), "ec", "EC PRIVATE KEY", None),
        (rsa(3072), "pkey", "PRIVATE KEY", None),
        (curve("P-384"), "pkey", "PRIVATE KEY", None),
        (genpkey("ED25519"), "pkey", "PRIVATE KEY", None),
        (curve("P-521"), "pkey", "", Some("is ECDSA on another curve")),
        (rsa(1024), "rsa -traditional", "", Some("cannot be used")),
        (curve("P-256"), "pkey -aes128 -passout pass:secret", "", Some(not_a_key)),
    ];
    for (key, written, label, expected) in rows {
        let (chain, bytes) = made(&key, written);
        match (Pair::read(&chain, &bytes), expected) {
            (Ok(pair), None) => {
                assert!(pair.key.starts_with(&format!("-----BEGIN {label}-----")), "{key} {written}");
                assert_eq!(Pair::read(pair.chain.as_bytes(), pair.key.as_bytes()), Ok(pair), "{key} {written}");
            }
            (Err(why), Some(expected)) => assert!(why.contains(expected), "{key} {written}: {why}"),
            (found, _) => panic!("{key} {written}: {found:?}"),
        }
    }
}
