//! Settings of `inject`: flags, below them the same variables as the operator's, below those the defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::overrides::{image, pull_policy};
use super::{Common, IMAGE, STATUS_PORT};
use crate::settings::{Log, Reader, SettingsError, environment, port};

/// Flags of `inject`. Each may be given as a variable as well: `--sidecar-image` is `POSTERN_OPERATOR_SIDECAR_IMAGE`.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Where reviews are answered, over HTTPS [0.0.0.0:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<String>,
    /// Where /livez and /readyz are answered, over HTTP [0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    status_address: Option<String>,
    /// Folder with tls.crt and tls.key, which may come late and change [/etc/postern-injector]
    #[arg(long, value_name = "FOLDER")]
    certificate_folder: Option<String>,
    /// Image of the sidecar [postern-sidecar of this version]
    #[arg(long, value_name = "IMAGE")]
    sidecar_image: Option<String>,
    /// When it is pulled: Always, IfNotPresent, Never [as Kubernetes has it]
    #[arg(long, value_name = "POLICY")]
    sidecar_image_pull_policy: Option<String>,
    /// Port of the sidecars' probes and /status, as the operator has it [6190]
    #[arg(long, value_name = "PORT")]
    status_port: Option<String>,
    /// Least severe diagnostic that is printed: Error, Warn, Info, Debug [Info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How diagnostics are written: Json, Text [Json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// How the webhook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where reviews are answered.
    pub address: SocketAddr,
    /// Where probes are answered.
    pub status_address: SocketAddr,
    /// Where the certificate is.
    pub certificate_folder: PathBuf,
    /// What all sidecars have in common.
    pub common: Common,
    /// What is logged, and how.
    pub log: Log,
}

impl Settings {
    /// Reads flags and the environment.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(flags: Flags) -> Result<Self, SettingsError> {
        let mut reader = Reader { variable: environment, errors: Vec::new() };
        let status_port = STATUS_PORT.to_string();
        let settings = Self {
            address: reader.value("--address", flags.address, "0.0.0.0:8443", address).unwrap_or(NOWHERE),
            status_address: reader
                .value("--status-address", flags.status_address, "0.0.0.0:8080", address)
                .unwrap_or(NOWHERE),
            certificate_folder: reader.value(
                "--certificate-folder",
                flags.certificate_folder,
                "/etc/postern-injector",
                |text| Ok(PathBuf::from(text)),
            ),
            common: Common {
                image: reader.value("--sidecar-image", flags.sidecar_image, IMAGE, image),
                image_pull_policy: reader.value(
                    "--sidecar-image-pull-policy",
                    flags.sidecar_image_pull_policy,
                    "",
                    |text| (!text.is_empty()).then(|| pull_policy(text)).transpose(),
                ),
                status_port: reader.value("--status-port", flags.status_port, &status_port, port),
            },
            log: reader.log(flags.log_level, flags.log_format),
        };
        if reader.errors.is_empty() { Ok(settings) } else { Err(SettingsError(reader.errors)) }
    }
}

/// Stands in for an address that is wrong, and is never used.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    let read = text.parse().map_err(|_| "is not an address with a port, such as `0.0.0.0:8443` or `[::]:8443`");
    Ok(Some(read?))
}
