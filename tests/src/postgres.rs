//! A real PostgreSQL in a folder of its own: on a unix socket and on TCP with TLS, killed and started again.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::ca::{Authority, LeafOptions};
use crate::clients::{Finished, run};
use crate::wait::{PATIENCE, eventually};

/// Where Debian has its programs, one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The owner of everything in it.
pub const OWNER: &str = "postgres";

/// A running server, which ends when it is dropped.
pub struct Postgres {
    child: Option<Child>,
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    address: IpAddr,
    port: u16,
}

impl Postgres {
    /// Makes and starts one on loopback.
    ///
    /// # Errors
    /// When PostgreSQL is not there or does not come up.
    pub fn start(authority: &Authority) -> Result<Self> {
        Self::start_at(authority, Ipv4Addr::LOCALHOST.into(), "db.example")
    }

    /// Makes and starts one. On TCP it asks for a password and takes TLS, with a certificate of `authority` for its address
    /// and this name; on its unix socket it believes everybody.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(authority: &Authority, address: IpAddr, name: &str) -> Result<Self> {
        let mut server = Self::of_nothing(address)?;
        let data = server.data();
        let made = server.finished(
            server
                .command("initdb")
                .args(["--username", OWNER, "--auth-local=trust", "--auth-host=scram-sha-256"])
                .args(["--encoding=UTF8", "--no-locale", "--no-sync", "--pgdata"])
                .arg(&data),
        )?;
        ensure!(made.code == Some(0), "initdb: {}", made.stderr);
        let options =
            LeafOptions { addresses: vec![address], dns_names: vec![name.to_owned()], ..LeafOptions::server(name) };
        authority.issue(&options.for_a_day())?.write(&data, "server")?;
        for name in ["server.pem", "server.key"] {
            fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o600))?;
            server.own(&data.join(name))?;
        }
        // What initdb writes is for loopback alone.
        let mut rules = fs::OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
        rules.write_all(b"hostssl all all all scram-sha-256\n")?;
        server.resume()?;
        Ok(server)
    }

    fn of_nothing(address: IpAddr) -> Result<Self> {
        let programs = programs().context("no PostgreSQL; `scripts/need postgres` installs it on Debian")?;
        let folder = tempfile::Builder::new().prefix("postern-postgres-").tempdir()?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let server = Self { child: None, folder, programs, user: unprivileged()?, address, port };
        server.own(server.folder.path())?;
        Ok(server)
    }

    /// Starts a standby of this one, which follows it and takes no writes until it is [promoted](Self::promote).
    ///
    /// # Errors
    /// When it cannot be copied, or does not come up.
    pub fn standby(&self) -> Result<Self> {
        let mut server = Self::of_nothing(self.address)?;
        let made = server.finished(
            server
                .command("pg_basebackup")
                .args(["--username", OWNER, "--port", &self.port.to_string(), "--checkpoint=fast", "--no-sync"])
                .args(["--write-recovery-conf", "--host"])
                .arg(self.folder.path())
                .arg("--pgdata")
                .arg(server.data()),
        )?;
        ensure!(made.code == Some(0), "pg_basebackup: {}", made.stderr);
        server.resume()?;
        Ok(server)
    }

    /// Makes a standby one that takes writes.
    ///
    /// # Errors
    /// When it does not become one.
    pub fn promote(&self) -> Result<()> {
        ensure!(self.sql("SELECT pg_promote()")? == "t", "not in time");
        Ok(())
    }

    /// Holds all its processes (SIGSTOP): whoever connects is let in by the kernel, and nobody is answered.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets them go on (SIGCONT).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let id = child.id();
        let mut ids = vec![id.to_string()];
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        ids.extend(children.split_whitespace().map(str::to_owned));
        // One of a connection may have ended.
        run(Command::new("kill").arg(format!("-{name}")).args(ids), b"", PATIENCE).map(drop)
    }

    /// A URL for the unix socket, as the owner.
    #[must_use]
    pub fn local_url(&self) -> String {
        format!("postgres://{OWNER}@/postgres?host={}&port={}", self.folder.path().display(), self.port)
    }

    /// A URL for TCP.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@{}/postgres", SocketAddr::from((self.address, self.port)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// At which port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the owner is answered by `psql`, without what is around the values.
    ///
    /// # Errors
    /// When it is refused.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let finished = self.try_sql(sql)?;
        ensure!(finished.code == Some(0), "{sql}: {}", finished.stderr);
        Ok(finished.text().trim_end().to_owned())
    }

    /// The same, however it ends. Input comes as from a file.
    ///
    /// # Errors
    /// When `psql` cannot be started, or does not end.
    pub fn try_sql(&self, sql: &str) -> Result<Finished> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.local_url()]);
        run(&mut psql, sql.as_bytes(), PATIENCE)
    }

    /// Its first process, the parent of all others, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it with all its connections, as a crash would.
    pub fn kill(&mut self) {
        // Those of its connections end by themselves when it is gone, unless they are held.
        let _ = self.thaw();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn resume(&mut self) -> Result<()> {
        eventually("PostgreSQL", PATIENCE, || {
            // After a kill the processes of its connections may be there for a moment, and keep it from starting.
            let is_gone = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some()));
            if is_gone {
                self.child = Some(self.spawn()?);
            }
            Ok(self.try_sql("SELECT 1").ok().filter(|finished| finished.code == Some(0)))
        })?;
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let settings = [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.folder.path().display()),
            format!("listen_addresses={}", self.address),
            "ssl=on".to_owned(),
            "ssl_cert_file=server.pem".to_owned(),
            "ssl_key_file=server.key".to_owned(),
            // What is killed here is processes, and not the machine.
            "fsync=off".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in settings {
            command.args(["-c", &setting]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("start postgres")
    }

    /// One of its programs, as somebody who is not root: it refuses to be.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let Some((user, group)) = self.user else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups").arg(program);
        command.current_dir(self.folder.path());
        command
    }

    fn finished(&self, command: &mut Command) -> Result<Finished> {
        run(command.env("LC_ALL", "C"), b"", PATIENCE)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn own(&self, path: &Path) -> Result<()> {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of its programs, of the newest version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let mut versions: Vec<_> = versions.collect();
    versions.sort();
    let folders = std::env::split_paths(&path).chain(versions.into_iter().rev());
    folders.into_iter().find(|folder| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file()))
}

/// Whom root becomes: PostgreSQL's user, or nobody.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
        Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(Some(ids(OWNER).or_else(|| ids("nobody")).context("nobody to be")?))
}
