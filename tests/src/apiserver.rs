//! A real control plane for tests: etcd and kube-apiserver on free ports of loopback, one for all tests of a binary.
//!
//! There is no controller manager: nothing makes endpoints, collects garbage or ends a namespace. Tests share the server
//! and no namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::audit::{self, Audit};
use crate::ca::{Authority, Issued, LeafOptions, Purpose};
use crate::clients::{Finished, run};
use crate::rights::Shipped;
use crate::together::{Program, Together};
use crate::wait::{PATIENCE, eventually};

/// Four seconds are usual; beside a build it takes longer.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// A port that was free a moment ago can be somebody else's by now.
const STARTS: usize = 3;
/// kubectl waits for nothing that tests ask of it for longer.
const KUBECTL_PATIENCE: Duration = Duration::from_secs(60);
/// The group that may do everything (Kubernetes' bootstrap policy).
pub const MASTERS: &str = "system:masters";

/// A running control plane. It ends when it is dropped or this process ends, however that happens.
pub struct ApiServer {
    // Ended before its folder goes.
    programs: Together,
    authority: Authority,
    folder: PathBuf,
    url: String,
    kubectl: PathBuf,
    namespaces: AtomicUsize,
    shipped: Shipped,
}

impl ApiServer {
    /// The one of this process, started by whoever asks first.
    ///
    /// # Errors
    /// When it could not be started; everybody who asks is told.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ApiServer>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When one of its programs is missing, with what to do, or does not come up.
    pub fn start() -> Result<Self> {
        Self::start_as(Self::begin)
    }

    /// One that can be taken away and brought back.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again_and_again() -> Result<Self> {
        Self::start_as(Self::begin_again_and_again)
    }

    fn start_as(begin: fn() -> Result<Self>) -> Result<Self> {
        let mut failed = String::new();
        for _ in 0..STARTS {
            let mut server = begin()?;
            match server.wait_ready() {
                Ok(()) => {
                    server.define()?;
                    return Ok(server);
                }
                Err(error) => {
                    let [etcd, server] = ["etcd", "kube-apiserver"].map(|name| server.programs.last_words(name));
                    failed = format!("{error:#}\netcd:\n{etcd}\nkube-apiserver:\n{server}");
                }
            }
        }
        bail!("{failed}")
    }

    /// A namespace that is nobody else's, called after `prefix`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, prefix: &str) -> Result<Namespace<'_>> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        succeeded(&self.kubectl(&["create", "-f", "-"], &document.to_string())?)?;
        Ok(Namespace { server: self, name })
    }

    /// Runs kubectl as somebody who may do everything.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(self.folder.join("cache"));
        run(command.args(arguments), input.as_bytes(), KUBECTL_PATIENCE)
    }

    /// kubectl, for who needs it in another way.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// The kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.conf")
    }

    /// A kubeconfig of somebody else, who may do what the group may.
    ///
    /// # Errors
    /// When their certificate cannot be made or written.
    pub fn user(&self, name: &str, group: &str) -> Result<PathBuf> {
        self.user_as(name, name, group)
    }

    /// The same for somebody who has several, each a file.
    pub(crate) fn user_as(&self, file: &str, name: &str, group: &str) -> Result<PathBuf> {
        user(&self.authority, name, group)?.write(&self.folder, file)?;
        write_kubeconfig(&self.folder, &self.url, file, &certificate_of(&self.folder, file))
    }

    /// A kubeconfig of whoever has a token.
    pub(crate) fn bearer(&self, name: &str, token: &str) -> Result<PathBuf> {
        write_kubeconfig(&self.folder, &self.url, name, &json!({"token": token}))
    }

    /// The rights that are shipped.
    pub(crate) fn shipped(&self) -> &Shipped {
        &self.shipped
    }

    /// Its audit log.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::at(self.folder.join("audit.log"))
    }

    /// What a user has written into a namespace or tried to, oldest first.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn writes(&self, user: &str, namespace: &str) -> Result<Vec<String>> {
        self.audit().writes(user, namespace)
    }

    /// Ends the API server without a word, and keeps it from coming back. What it has stored stays.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn take_away(&self) -> Result<()> {
        fs::write(self.folder.join("away"), "")?;
        let process =
            fs::read_to_string(self.folder.join("process")).context("an API server that can be taken away")?;
        let killed = run(Command::new("sh").args(["-c", "kill -KILL $0", process.trim()]), b"", PATIENCE)?;
        ensure!(killed.code == Some(0), "{}", killed.stderr);
        eventually("the API server to be gone", PATIENCE, || {
            let answered = self.kubectl(&["get", "--raw", "/readyz"], "")?;
            Ok((answered.code != Some(0)).then_some(()))
        })
    }

    /// Has it come back, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn bring_back(&self) -> Result<()> {
        fs::remove_file(self.folder.join("away"))?;
        self.wait_ready()
    }

    fn begin_again_and_again() -> Result<Self> {
        Self::begin_with(|folder, program| {
            let again = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/again");
            let own = [folder.display().to_string(), program.path.display().to_string()];
            Program { path: again, arguments: own.into_iter().chain(program.arguments).collect(), ..program }
        })
    }

    fn begin() -> Result<Self> {
        Self::begin_with(|_, program| program)
    }

    fn begin_with(run_as: impl FnOnce(&Path, Program) -> Program) -> Result<Self> {
        let [etcd, apiserver, kubectl] = [program("etcd")?, program("kube-apiserver")?, program("kubectl")?];
        let folder = tempfile::Builder::new().prefix("postern-apiserver-").tempdir()?;
        let authority = Authority::new("kubernetes")?;
        write_certificates(folder.path(), &authority)?;
        let [clients, peers, port] = free_ports()?;
        let url = format!("https://127.0.0.1:{port}");
        write_kubeconfig(folder.path(), &url, "admin", &certificate_of(folder.path(), "admin"))?;
        fs::write(folder.path().join("audit.json"), audit::policy().to_string())?;
        let server = Program {
            name: "kube-apiserver".to_owned(),
            path: apiserver,
            arguments: apiserver_arguments(folder.path(), clients, port),
        };
        let programs = [
            Program { name: "etcd".to_owned(), path: etcd, arguments: etcd_arguments(folder.path(), clients, peers) },
            run_as(folder.path(), server),
        ];
        let programs = Together::start(folder.path(), &programs)?;
        let (folder, namespaces) = (folder.keep(), AtomicUsize::new(0));
        Ok(Self { programs, authority, folder, url, kubectl, namespaces, shipped: Shipped::default() })
    }

    /// Applies the definitions of our own kinds, and waits until they are served; then roles and policies.
    fn define(&mut self) -> Result<()> {
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
        let definitions = definitions.to_str().context("a path of the checkout")?;
        succeeded(&self.kubectl(&["apply", "--server-side", "-f", definitions], "")?)?;
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "-f", definitions];
        succeeded(&self.kubectl(&established, "")?)?;
        self.shipped = Shipped::read(self)?;
        let once = json!({"apiVersion": "v1", "kind": "List", "items": self.shipped.once}).to_string();
        succeeded(&self.kubectl(&["apply", "--server-side", "-f", "-"], &once)?).map(drop)
    }

    fn wait_ready(&self) -> Result<()> {
        eventually("the API server", START_PATIENCE, || {
            ensure!(!self.programs.have_ended(), "the API server ended:");
            let finished = self.kubectl(&["get", "--raw", "/readyz"], "")?;
            Ok((finished.text() == "ok").then_some(()))
        })
    }
}

/// A namespace of one test.
pub struct Namespace<'a> {
    /// Where it is.
    pub server: &'a ApiServer,
    /// Its name.
    pub name: String,
}

impl Namespace<'_> {
    /// The kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.server.kubeconfig()
    }

    /// Runs kubectl in it.
    ///
    /// # Errors
    /// When kubectl cannot be started or does not end.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        let in_it = ["--namespace", &self.name];
        self.server.kubectl(&[&in_it, arguments].concat(), input)
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        succeeded(&self.kubectl(arguments, "")?)
    }

    /// Applies an object.
    ///
    /// # Errors
    /// When it is refused, with why.
    pub fn apply(&self, object: &Value) -> Result<()> {
        succeeded(&self.kubectl(&["apply", "--server-side", "-f", "-"], &object.to_string())?).map(drop)
    }

    /// An object as it is now, such as `pod/orders-1`; `None` where there is none.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn object(&self, name: &str) -> Result<Option<Value>> {
        let text = self.run(&["get", name, "--ignore-not-found", "-o", "json"])?;
        if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }
}

pub(crate) fn succeeded(finished: &Finished) -> Result<String> {
    ensure!(finished.code == Some(0), "kubectl: {}", finished.stderr.trim_end());
    Ok(finished.text())
}

/// Where a program is: KUBEBUILDER_ASSETS, PATH, or what was built.
fn program(name: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kubernetes");
    let finished = run(Command::new(script).args(["where", name]), b"", PATIENCE)?;
    ensure!(finished.code == Some(0), "{}", finished.stderr.trim_end());
    Ok(PathBuf::from(finished.text().trim_end()))
}

/// Ports that were free just now, each another's: all are held until all are chosen.
fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT]> {
    let listeners: Vec<_> = (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<_> = listeners.iter().map(|held| Ok(held.local_addr()?.port())).collect::<Result<_>>()?;
    ports.try_into().map_err(|_| anyhow!("as many ports as were asked for"))
}

fn etcd_arguments(folder: &Path, clients: u16, peers: u16) -> Vec<String> {
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // It goes with the process.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn apiserver_arguments(folder: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // Nobody looks for it by its Service, and loopback cannot be an endpoint.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // Pods name service accounts that no controller makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // Written before a request is handled, so that a test that has seen an answer finds what came before.
        format!("--audit-policy-file={}", file("audit.json")),
        format!("--audit-log-path={}", file("audit.log")),
        "--audit-log-mode=blocking-strict".to_owned(),
        format!("--client-ca-file={}", file("ca.pem")),
        format!("--tls-cert-file={}", file("server.pem")),
        format!("--tls-private-key-file={}", file("server.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--service-account-key-file={}", file("accounts.pem")),
    ]
}

fn write_certificates(folder: &Path, authority: &Authority) -> Result<()> {
    fs::write(folder.join("ca.pem"), authority.certificate_pem())?;
    let mut server = LeafOptions { not_after: for_the_day().not_after, ..LeafOptions::server("kube-apiserver") };
    server.dns_names.push("kubernetes.default.svc".to_owned());
    server.addresses.push(IpAddr::from(Ipv4Addr::new(10, 96, 0, 1)));
    authority.issue(&server)?.write(folder, "server")?;
    // All that is wanted of it is a pair of keys, with which tokens of service accounts are signed.
    authority.issue(&LeafOptions::default())?.write(folder, "accounts")?;
    user(authority, "admin", MASTERS)?.write(folder, "admin")
}

/// Longer than any run of tests.
fn for_the_day() -> LeafOptions {
    LeafOptions { not_after: OffsetDateTime::now_utc() + time::Duration::hours(12), ..LeafOptions::default() }
}

/// Somebody as the API server knows them: a name and a group in a certificate.
fn user(authority: &Authority, name: &str, group: &str) -> Result<Issued> {
    authority.issue(&LeafOptions {
        common_name: name.to_owned(),
        organisation: group.to_owned(),
        purposes: vec![Purpose::Client],
        ..for_the_day()
    })
}

/// How somebody shows who they are for whom there is a certificate in the folder.
fn certificate_of(folder: &Path, user: &str) -> Value {
    let file = |ending: &str| folder.join(format!("{user}.{ending}"));
    json!({"client-certificate": file("pem"), "client-key": file("key")})
}

/// A kubeconfig. JSON is YAML.
fn write_kubeconfig(folder: &Path, url: &str, user: &str, credentials: &Value) -> Result<PathBuf> {
    let file = |name: &str| folder.join(name);
    let cluster = json!({"server": url, "certificate-authority": file("ca.pem")});
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
        "current-context": "tests",
    });
    let path = file(&format!("{user}.conf"));
    fs::write(&path, document.to_string()).context("write a kubeconfig")?;
    Ok(path)
}
