//! Keeps true what a cluster may have or not: ReferenceGrants of Gateway API. Nothing waits for a kind that is not served;
//! whether it is by now is asked again and again.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use kube::api::ApiResource;
use kube::core::DynamicObject;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::again::watched;
use super::watch::{Listing, Place};
use super::{Grant, Index, Object, ObjectKind};
use crate::limits::{BACK_OFF_FIRST, OPTIONAL_AGAIN};

const GROUP: &str = "gateway.networking.k8s.io";
/// The newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const KIND: &str = "ReferenceGrant";

/// Starts watching, in these namespaces or in all.
pub(super) fn watch(index: &Arc<Index>, client: &Client, places: &[Place], tasks: &mut JoinSet<()>) {
    let listings: Vec<_> = places.iter().map(|place| Listing::new(index, ObjectKind::Grant, place)).collect();
    tasks.spawn(keep(client.clone(), listings));
}

async fn keep(client: Client, mut listings: Vec<Listing>) {
    let mut pause = BACK_OFF_FIRST;
    loop {
        match served(&client).await {
            Ok(Some(resource)) => follow(&client, &resource, &mut listings).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(kind = KIND, %error, "cannot find out whether it is served; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(OPTIONAL_AGAIN);
                continue;
            }
        }
        pause = BACK_OFF_FIRST;
        listings.iter_mut().for_each(Listing::is_absent);
        sleep(OPTIONAL_AGAIN).await;
    }
}

/// How the kind is served, if it is.
pub async fn served(client: &Client) -> kube::Result<Option<ApiResource>> {
    for version in VERSIONS {
        let api_version = format!("{GROUP}/{version}");
        let kinds = match client.list_api_group_resources(&api_version).await {
            Ok(kinds) => kinds.resources,
            Err(kube::Error::Api(error)) if error.code == 404 => continue,
            Err(error) => return Err(error),
        };
        if let Some(found) = kinds.into_iter().find(|found| found.kind == KIND && !found.name.contains('/')) {
            return Ok(Some(ApiResource {
                group: GROUP.to_owned(),
                version: version.to_owned(),
                api_version,
                kind: KIND.to_owned(),
                plural: found.name,
            }));
        }
    }
    Ok(None)
}

/// Takes in what happens, until the kind is not served any more.
async fn follow(client: &Client, resource: &ApiResource, listings: &mut [Listing]) {
    let streams = listings.iter().enumerate().map(|(number, listing)| {
        let api: Api<DynamicObject> = match listing.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let events = watched(api, watcher::Config::default());
        events.map(move |event| (number, event)).boxed()
    });
    let mut events = select_all(streams.collect::<Vec<_>>());
    let prune = |object: DynamicObject| Some(Object::Grant(Arc::new(Grant::of(&object))));
    while let Some((number, event)) = events.next().await {
        match event {
            Ok(event) => listings[number].take(event, prune),
            Err(error) if is_not_served(&error) => return,
            Err(error) => listings[number].failed(&error),
        }
    }
}

fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
