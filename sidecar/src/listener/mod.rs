//! Sockets, and the workers that accept on them.

mod accept;
mod bind;
mod worker;

pub use bind::{Binder, Sockets};
pub use worker::{Handles, Worker, spawn};
