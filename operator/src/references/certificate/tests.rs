//! Tables: what a Secret holds, and whether a sidecar can show it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use super::{Pair, Summary};

/// A self-signed certificate and its key.
fn issued(name: &str, usages: &[ExtendedKeyUsagePurpose]) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("names");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.extended_key_usages = usages.to_vec();
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

fn secret(kind: &str, entries: &[(&str, &str)]) -> Secret {
    let data = entries.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret { type_: Some(kind.to_owned()), data: Some(data.collect()), ..Secret::default() }
}

#[test]
fn what_a_sidecar_cannot_show_is_refused_with_the_remedy() {
    let (chain, key) = issued("web.example", &[]);
    let (other_chain, other_key) = issued("other.example", &[ExtendedKeyUsagePurpose::ServerAuth]);
    let (client, client_key) = issued("client", &[ExtendedKeyUsagePurpose::ClientAuth]);
    let tls = |chain: &str, key: &str| secret("kubernetes.io/tls", &[("tls.crt", chain), ("tls.key", key)]);
    let whole = format!("{chain}{other_chain}");
    let long = chain.repeat(250);
    let rows = [
        ("as it should be", tls(&chain, &key), None),
        ("with usages", tls(&other_chain, &other_key), None),
        ("with what is above it", tls(&whole, &key), None),
        (
            "another type",
            secret("Opaque", &[("tls.crt", &chain), ("tls.key", &key)]),
            Some("is of type `Opaque`; name one of type `kubernetes.io/tls`"),
        ),
        ("empty", tls("", ""), Some("`tls.crt` holds no PEM block `CERTIFICATE`")),
        (
            "no key",
            tls(&chain, ""),
            Some("`tls.key` is not a private key; put one unencrypted PEM block `PRIVATE KEY` (PKCS#8) there"),
        ),
        (
            "swapped",
            tls(&key, &chain),
            Some("`tls.crt` holds a block `PRIVATE KEY` where `CERTIFICATE` is expected; remove it"),
        ),
        (
            "another's key",
            tls(&chain, &other_key),
            Some(
                "`tls.key` is not the key of `CN=rcgen self signed cert` in `tls.crt`; write the chain with its leaf first, and the key that leaf was issued for",
            ),
        ),
        (
            "a client's",
            tls(&client, &client_key),
            Some("`tls.crt` may not be shown by servers; issue it with extended key usage serverAuth"),
        ),
        (
            "endless",
            tls(&long, &key),
            Some("is larger than 64 KiB; leave what is not between leaf and root out of the chain"),
        ),
    ];
    for (case, secret, expected) in rows {
        assert_eq!(Pair::of(&secret).err().as_deref(), expected, "{case}");
    }
}

#[test]
fn what_is_written_is_read_again_and_says_nothing_else() {
    let (chain, key) = issued("web.example", &[]);
    let pair = Pair::read(format!("# issued today\n{chain}").as_bytes(), format!("\n{key}\n").as_bytes());
    let pair = pair.expect("a pair");
    assert!(!pair.chain.contains('#') && pair.chain.starts_with("-----BEGIN CERTIFICATE"));
    assert_eq!(Pair::read(pair.chain.as_bytes(), pair.key.as_bytes()), Ok(pair.clone()));
    assert!(!format!("{pair:?}").contains("PRIVATE"));
}

#[test]
fn a_certificate_is_shown_in_its_time() {
    let summary = Summary { digest: [0; 32], not_before: 100, not_after: 200 };
    let early = "`tls.crt` is valid from 1970-01-01T00:01:40Z only";
    let late = "`tls.crt` has expired at 1970-01-01T00:03:20Z; renew it";
    for (now, told, next) in
        [(99, Some(early), Some(100)), (100, None, Some(201)), (200, None, Some(201)), (201, Some(late), None)]
    {
        assert_eq!(summary.out_of_time(now).as_deref(), told, "{now}");
        assert_eq!(summary.next_look(now), next, "{now}");
    }
}
