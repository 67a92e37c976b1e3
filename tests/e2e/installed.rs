//! What is shipped, as a real API server takes it.

use crate::cluster::{Cluster, OWN, in_checkout, path};

/// Each field is known, each value allowed, by the schemas and admission of this very server.
#[test]
fn the_chart_and_the_files_are_what_the_api_server_takes() {
    let cluster = Cluster::shared();
    let strict = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"];
    let chart = in_checkout("charts/postern");
    let template =
        ["template", "postern", path(&chart).unwrap(), "--namespace", OWN, "--set", "networkPolicy.enabled=true"];
    let rendered = cluster.helm(&template).unwrap();
    let taken = cluster.kubectl(&[strict.as_slice(), &["-"]].concat(), &rendered).unwrap();
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    assert_eq!(rendered.matches("\nkind: ").count(), taken.text().lines().count(), "{}", taken.text());
    for folder in ["deploy/operator", "deploy/crds"] {
        cluster.run(&[strict.as_slice(), &[path(&in_checkout(folder)).unwrap()]].concat()).unwrap();
    }
}
