//! `log body`: its flags, and the bodies that a row keeps.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use super::filters::FilterArgs;
use super::store::StoreArgs;
use crate::log::{self, BodyKey, Opened, Unread, Which};

#[derive(Args, Debug)]
pub(super) struct BodyArgs {
    /// Of the row, or of the request
    #[arg(value_name = "ID")]
    id: String,
    /// File with a key for bodies; several, where keys were changed. By default the one that the configuration names
    #[arg(long = "key-file", value_name = "FILE")]
    key_files: Vec<PathBuf>,
    /// The request's
    #[arg(long, conflicts_with = "response")]
    request: bool,
    /// The response's
    #[arg(long)]
    response: bool,
}

/// Writes a body as it came.
pub(super) async fn body(store: &StoreArgs, filters: &FilterArgs, args: &BodyArgs, unread: &Unread) -> Result<()> {
    let files = if args.key_files.is_empty() { store.body_key().into_iter().collect() } else { args.key_files.clone() };
    let keys =
        files.iter().map(|file| BodyKey::read(file)).collect::<Result<Vec<_>, _>>().map_err(|why| anyhow!(why))?;
    let id = &log::safe(&args.id);
    let Some(found) = log::find(&mut store.open().await?, &filters.filter(1), &args.id, unread).await? else {
        bail!("no row and no request has the id {id}")
    };
    let bodies = found.bodies(&keys).map_err(|error| anyhow!("{id}: {error}"))?;
    let Opened { which, whole, bytes } = chosen(bodies, args)?;
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        // Clients choose what is in it.
        for line in String::from_utf8_lossy(&bytes).lines() {
            writeln!(out, "{}", log::safe(line))?;
        }
    } else {
        out.write_all(&bytes)?;
    }
    out.flush()?;
    if whole > bytes.len() as u64 {
        let (kept, name) = (bytes.len(), which.name());
        let _nowhere_to_tell =
            writeln!(io::stderr(), "postern-sidecar: the first {kept} bytes of a {name} body of {whole}");
    }
    Ok(())
}

/// The one that is asked for, or the one there is.
fn chosen(mut bodies: Vec<Opened>, args: &BodyArgs) -> Result<Opened> {
    let id = log::safe(&args.id);
    let asked = [(args.request, Which::Request), (args.response, Which::Response)];
    if let Some((_, which)) = asked.into_iter().find(|(is_asked, _)| *is_asked) {
        bodies.retain(|body| body.which == which);
    }
    match (bodies.pop(), bodies.is_empty()) {
        (Some(body), true) => Ok(body),
        (Some(_), false) => bail!("{id} has a request body and a response body: choose by --request or --response"),
        (None, _) => bail!("{id} has no such body: its route does not ask for it, none came, or there was no key"),
    }
}
