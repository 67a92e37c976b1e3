//! The cluster that a command asks, as kubectl does: by the kubeconfig, its context, its namespace.

use std::future::Future;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Builder;

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// File that says where the API server is [$KUBECONFIG, or that of your home]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file [the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace [that of the context]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// A cluster that answers.
pub struct Cluster {
    /// Who is asked.
    pub client: Client,
    /// The namespace that is meant where none is given.
    pub namespace: String,
}

impl Connection {
    /// Connects to it.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read, or has no such context.
    pub async fn open(&self) -> Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context("no cluster: give --kubeconfig, or set KUBECONFIG")?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Cluster { client: Client::try_from(config).context("cannot talk to the API server")?, namespace })
    }
}

/// Runs what speaks with a cluster.
///
/// # Errors
/// As it says.
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}
