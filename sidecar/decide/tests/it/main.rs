//! The decisions, as tables: one helper per behaviour, many rows.

#![expect(clippy::expect_used, reason = "clippy allows it in tests only, and not in what they share")]

mod accept;
mod accept_backends;
mod accept_filters;
mod accept_listeners;
mod accept_matches;
mod accept_problems;
mod accept_problems_identities;
mod accept_problems_policy;
mod accept_problems_trust;
mod accept_revisions;
mod accept_upstreams;
mod capture;
mod certificate;
mod crl;
mod filter_hops;
mod filter_identity;
mod filter_names;
mod filter_rewrite;
mod fixture;
mod grants;
mod identity;
mod limiter;
mod message_type;
mod path;
mod pods;
mod policy;
mod purity;
mod reason;
mod route;
mod route_claims;
mod route_conditions;
mod route_messages;
mod route_paths;
mod server;
