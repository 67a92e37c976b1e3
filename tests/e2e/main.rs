//! End to end, black box: a real cluster, the images as they are shipped, kubectl and curl. `make e2e` brings up the cluster
//! that `scripts/cluster` says, gives it the images, and runs these; each case has a namespace of its own, in which Pod
//! Security enforces `restricted`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping; the panic is its failure"
)]

mod away;
mod calls;
mod captured;
mod changes;
mod cluster;
mod hops;
mod installed;
mod jobs;
mod kept;
mod load;
mod node;
mod observed;
mod probes;
mod protocols;
mod quickstart;
mod refused;
mod rolling;
mod rotation;
mod scene;
mod shipping;
mod unattended;
