//! Contract versions: their form, their order, and which of them this build reads.

use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN, ContractVersion, Document, DocumentError};

fn version(major: u16, minor: u16) -> ContractVersion {
    ContractVersion { major, minor }
}

#[test]
fn versions() {
    let table = [("1.0", version(1, 0)), ("1.10", version(1, 10)), ("65535.65535", version(u16::MAX, u16::MAX))];
    for (text, expected) in table {
        assert_eq!(text.parse(), Ok(expected));
        assert_eq!(expected.to_string(), text);
    }
    assert!(version(1, 10) > version(1, 9), "minor versions are numbers, not digits");
}

#[test]
fn not_versions() {
    for text in ["", "1", "1.", ".1", "1.0.0", "v1.0", "1.-1", "1.+1", "1.65536", " 1.0", "1.0 "] {
        let error = text.parse::<ContractVersion>().unwrap_err();
        assert_eq!(error, format!("`{text}` is not a contract version; write it as `1.1`"));
    }
}

#[test]
fn this_build_reads_its_range_and_nothing_else() {
    assert!(CONTRACT_MIN <= CONTRACT_MAX);
    assert!(CONTRACT_MIN.is_supported() && CONTRACT_MAX.is_supported());
    let beyond = version(CONTRACT_MAX.major, CONTRACT_MAX.minor + 1);
    for unsupported in [version(0, 9), beyond, version(CONTRACT_MAX.major + 1, 0)] {
        let document = serde_json::json!({ "version": unsupported });
        assert_eq!(Document::from_value(document), Err(DocumentError::UnsupportedVersion(unsupported)));
    }
}
