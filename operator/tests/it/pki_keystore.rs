//! Keystores, as openssl and Java read them.

use postern_operator::pki::fresh;
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::keystore::{holds, write};

use crate::pki_fixture::{issued, made, openssl, request, run};

#[test]
fn openssl_finds_key_chain_and_root_in_a_keystore() {
    let made = made(Algorithm::default());
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519, Algorithm::Rsa2048] {
        let (leaf, key) = issued(&made.issuer, &request(), algorithm);
        let password = fresh::password().unwrap();
        let store = write(key.der(), &leaf.chain_pem, &made.issuer.roots_pem(), &password).unwrap();
        let read = |what: &str, password: &str| {
            openssl(&format!("pkcs12 -in {{p}} -passin pass:{password} -nodes {what}"), &[("p", &store)])
        };
        let keys = read("-nocerts", &password).unwrap();
        let public = openssl("pkey -in {k} -pubout", &[("k", keys.as_bytes())]).unwrap();
        let of_leaf = openssl("x509 -noout -pubkey -in {c}", &[("c", leaf.chain_pem.as_bytes())]).unwrap();
        assert_eq!(public, of_leaf, "{algorithm:?}");
        let own = read("-nokeys -clcerts", &password).unwrap();
        assert!(own.contains(&leaf.chain_pem[..200]), "the leaf goes with the key");
        let all = read("-nokeys", &password).unwrap();
        assert!(all.contains(made.issuer.chain_pem().trim()) && all.contains(made.issuer.roots_pem().trim()));
        assert!(read("-nokeys", "wrong").is_err());
        assert!(holds(&store, &password, &leaf.certificate.der));
        assert!(!holds(&store, "wrong", &leaf.certificate.der));
        assert!(!holds(&store, &password, b"another"));
        assert!(!holds(&store[..100], &password, &leaf.certificate.der));
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what is skipped is told")]
fn java_finds_key_chain_and_root_in_a_keystore() {
    if run("keytool", "-help", &[]).is_err() {
        println!("skipped: there is no keytool; install a Java runtime to run this test");
        return;
    }
    let made = made(Algorithm::default());
    let (leaf, key) = issued(&made.issuer, &request(), Algorithm::default());
    let store = write(key.der(), &leaf.chain_pem, &made.issuer.roots_pem(), "changeit").unwrap();
    let listed =
        run("keytool", "-list -v -storetype PKCS12 -storepass changeit -keystore {p}", &[("p", &store)]).unwrap();
    assert!(listed.contains("Your keystore contains 2 entries"), "{listed}");
    assert!(listed.contains("Entry type: PrivateKeyEntry"), "{listed}");
    assert!(listed.contains("Certificate chain length: 3"), "{listed}");
    assert!(listed.contains("Entry type: trustedCertEntry"), "{listed}");
    assert!(listed.contains("CN=billing"), "{listed}");
}
