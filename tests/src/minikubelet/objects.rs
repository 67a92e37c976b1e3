//! The objects that a pod's projected volume names, as the API server has them now.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, VolumeProjection};
use kube::api::ListParams;
use kube::{Api, Client};

/// Most ConfigMaps with identities that a workload has.
const IDENTITIES: usize = 4;

/// A file and its bytes.
pub(super) type File = (String, Vec<u8>);

/// All ConfigMaps and Secrets of a namespace: two requests for all of its pods. They are read and not watched, so that
/// what was written before a touch is seen after it.
pub(super) struct Objects {
    maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
}

pub(super) async fn read(client: &Client, namespace: &str) -> Result<Objects> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let all = ListParams::default();
    let (maps, secrets) = tokio::try_join!(maps.list(&all), secrets.list(&all))?;
    let maps = maps.items.into_iter().map(|map| (map.metadata.name.clone().unwrap_or_default(), map));
    let secrets = secrets.items.into_iter().map(|secret| (secret.metadata.name.clone().unwrap_or_default(), secret));
    Ok(Objects { maps: maps.collect(), secrets: secrets.collect() })
}

impl Objects {
    /// The files of a pod's volume but its labels: each key of its objects is one. Objects may be missing.
    pub(super) fn files(&self, workload: &str, account: &str) -> Vec<File> {
        let mut names = vec![
            "postern-trust".to_owned(),
            format!("postern-policy-{workload}"),
            format!("postern-policy-{workload}-good"),
            format!("postern-endpoints-{workload}"),
        ];
        names.extend((0..IDENTITIES).map(|index| format!("postern-identities-{workload}-{index}")));
        let mut files = Vec::new();
        for map in names.iter().filter_map(|name| self.maps.get(name)) {
            let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
            files.extend(texts);
            files.extend(bytes(map.binary_data.as_ref()));
        }
        let secret = self.secrets.get(&format!("postern-id-{workload}-{account}"));
        files.extend(bytes(secret.and_then(|secret| secret.data.as_ref())));
        files
    }
}

impl Objects {
    /// The files of a projected volume but its labels.
    pub(super) fn projected(&self, sources: &[VolumeProjection]) -> Vec<File> {
        let files = sources.iter().flat_map(|source| {
            let (found, items) = match (&source.config_map, &source.secret) {
                (Some(named), _) => {
                    let map = self.maps.get(&named.name);
                    let texts = map.and_then(|map| map.data.as_ref()).into_iter().flatten();
                    let texts = texts.map(|(key, text)| (key.clone(), text.clone().into_bytes()));
                    (texts.chain(bytes(map.and_then(|map| map.binary_data.as_ref()))).collect(), &named.items)
                }
                (_, Some(named)) => {
                    let secret = self.secrets.get(&named.name);
                    (bytes(secret.and_then(|secret| secret.data.as_ref())).collect(), &named.items)
                }
                _ => (Vec::new(), &None),
            };
            // What is chosen goes into folders, which nothing here has a need of.
            if items.is_some() { Vec::new() } else { found }
        });
        files.collect()
    }
}

fn bytes(data: Option<&BTreeMap<String, ByteString>>) -> impl Iterator<Item = File> {
    data.into_iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()))
}
