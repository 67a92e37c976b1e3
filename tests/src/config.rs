//! A configuration on disk, replaced the way editors, `mv` and the kubelet replace one.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A temporary folder with a configuration and the files it names; removed when dropped.
pub struct ConfigFolder {
    folder: TempDir,
    /// How many times [`Self::publish`] has run: the kubelet, too, never uses a data folder twice.
    generation: u32,
}

impl ConfigFolder {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-test-").tempdir().context("make a folder")?;
        Ok(Self { folder, generation: 0 })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file, or replaces it in one step: a reader sees the old text or the new, never a part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let target = self.file(name);
        let fresh = self.file(&format!(".{name}.new"));
        fs::write(&fresh, text).with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &target).with_context(|| format!("replace {}", target.display()))
    }

    /// Writes a document as JSON, in one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_document(&self, document: &Value) -> Result<()> {
        self.write("postern.json", &format!("{document:#}"))
    }

    /// Replaces all files at once as the kubelet does in a projected volume: each name is a link through `..data`, and
    /// `..data` is a link to a folder that is swapped by a rename. Files of the last generation that are not named now
    /// are gone.
    ///
    /// # Errors
    /// When a file or link cannot be made.
    pub fn publish<T: AsRef<[u8]>>(&mut self, files: &[(&str, T)]) -> Result<()> {
        self.generation += 1;
        let name = format!("..generation_{}", self.generation);
        let data = self.file(&name);
        fs::create_dir(&data)?;
        for (file, bytes) in files {
            fs::write(data.join(file), bytes)?;
        }
        let previous = fs::read_link(self.file("..data")).ok();
        symlink(&name, self.file("..data_new"))?;
        fs::rename(self.file("..data_new"), self.file("..data"))?;
        for (file, _) in files {
            link_once(&self.file(file), &format!("..data/{file}"))?;
        }
        match previous {
            Some(previous) => self.forget(&previous, files),
            None => Ok(()),
        }
    }

    fn forget<T>(&self, previous: &Path, files: &[(&str, T)]) -> Result<()> {
        let previous = self.path().join(previous);
        for entry in fs::read_dir(&previous)? {
            let name = entry?.file_name();
            if !files.iter().any(|(file, _)| *file == name) {
                fs::remove_file(self.path().join(&name))?;
            }
        }
        fs::remove_dir_all(previous).context("remove the last generation")
    }
}

fn link_once(link: &Path, target: &str) -> Result<()> {
    if fs::symlink_metadata(link).is_err() {
        symlink(target, link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// The document most tests start from: listener `gate` on a free port, bundle `ours` (`ca.pem`), the server's own
/// `server.pem` and `server.key`, clients `demo/billing` (allowed), `demo/reports` (known, allowed nothing) and
/// `demo/mallory` (revoked); route `demo/orders` lets `demo/billing` GET and POST anything under `/`.
#[must_use]
pub fn document(upstream: SocketAddr) -> Value {
    json!({
        "version": "1.0",
        "settings": {
            "statusAddress": "127.0.0.1:0",
            "log": { "path": "requests.db", "flushEvery": "20ms" },
        },
        "trust": {
            "bundles": { "ours": { "roots": ["ca.pem"], "vouchesFor": { "spiffe": ["demo.local"] } } },
            "revocations": { "identities": [{ "name": "demo/mallory", "state": "Revoked" }] },
        },
        "identity": { "chain": "server.pem", "key": "server.key" },
        "identities": [known("billing"), known("reports"), known("mallory")],
        "policy": {
            "listeners": [{
                "name": "gate",
                "address": "127.0.0.1:0",
                "protocol": "HTTPS",
                "tls": { "clientAuth": "Required", "trust": ["ours"] },
            }],
            "routes": [{
                "name": "demo/orders",
                "listener": "gate",
                "hostnames": ["localhost"],
                "rules": [{
                    "name": "all",
                    "matches": [{ "method": "GET" }, { "method": "POST" }],
                    "allow": [{ "identity": "demo/billing" }],
                    "backends": [{ "address": upstream }],
                }],
            }],
        },
    })
}

/// A client of namespace `demo` that bundle `ours` vouches for.
#[must_use]
pub fn known(client: &str) -> Value {
    json!({
        "name": format!("demo/{client}"),
        "recognise": [{ "bundle": "ours", "uri": client_uri(client) }],
    })
}

/// The SPIFFE ID that a client's certificate carries.
#[must_use]
pub fn client_uri(client: &str) -> String {
    format!("spiffe://demo.local/ns/demo/client/{client}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::ConfigFolder;

    #[test]
    fn publishing_replaces_all_files_at_once() {
        let mut folder = ConfigFolder::new().unwrap();
        folder.publish(&[("a", "1"), ("b", "1")]).unwrap();
        folder.publish(&[("a", "2"), ("c", "2")]).unwrap();
        assert_eq!(fs::read_to_string(folder.file("a")).unwrap(), "2");
        assert_eq!(fs::read_to_string(folder.file("c")).unwrap(), "2");
        assert!(fs::symlink_metadata(folder.file("b")).is_err(), "a file that is no longer named is gone");
        assert!(fs::metadata(folder.file("..generation_1")).is_err(), "the last generation is gone");
    }
}
