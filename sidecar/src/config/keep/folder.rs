//! The state directory: one file for each item, its owner's only, replaced in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Item, Record};
use crate::config::FileBytes;
use crate::limits::STATE_FILE_BYTES;

/// A state directory, which need not be there yet.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The directory at a path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The file of an item.
    pub fn file(&self, item: Item) -> PathBuf {
        self.path.join(format!("{}.state", item.name()))
    }

    /// Where a file is until it is whole.
    fn fresh(&self, item: Item) -> PathBuf {
        self.path.join(format!(".{}.state.new", item.name()))
    }

    /// Whether it can be read, now or once it is there.
    ///
    /// # Errors
    /// Why what is in it counts for nothing.
    pub fn check(&self) -> Result<(), String> {
        match self.is_ours() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.told(&error)),
            _ => Ok(()),
        }
    }

    /// Reads what is kept of an item; `None` where nothing is.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(&self, item: Item) -> Result<Option<Record>, String> {
        self.check()?;
        let path = self.file(item);
        // What a kill left unfinished may hold a key, and nobody will finish it.
        let _absent_as_a_rule = fs::remove_file(self.fresh(item));
        let told = |why: &str| format!("{}: {why}", path.display());
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&error.to_string())),
        };
        if !metadata.is_file() {
            return Err(told("is not a file"));
        }
        let bytes = File::open(&path).and_then(|file| FileBytes::read(file, metadata.len(), STATE_FILE_BYTES));
        let bytes = bytes.map_err(|error| told(&error.to_string()))?;
        let bytes = bytes.ok_or_else(|| told(&format!("is larger than {STATE_FILE_BYTES} bytes")))?;
        Record::read(item, &bytes).map(Some).map_err(|why| told(&why))
    }

    /// Replaces what is kept of an item: after a crash there is the old record or the new one.
    ///
    /// # Errors
    /// Why it could not be written; the old record is still there.
    pub fn write(&self, record: &Record) -> Result<(), String> {
        let (fresh, path) = (self.fresh(record.item), self.file(record.item));
        let write = || {
            self.make()?;
            let _absent_as_a_rule = fs::remove_file(&fresh);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            record.write(&mut file)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            // The rename, too, is on disk only when the directory is.
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error: io::Error| {
            let _absent_if_it_could_not_be_made = fs::remove_file(&fresh);
            self.told(&error)
        })
    }

    fn told(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }

    fn make(&self) -> io::Result<()> {
        match self.is_ours() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
                self.is_ours()
            }
            other => other,
        }
    }

    /// Whether nobody else can read a key in it, or put a root certificate there.
    fn is_ours(&self) -> io::Result<()> {
        let metadata = self.path.metadata()?;
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
        if !metadata.is_dir() {
            return refuse("is not a folder; name another, or remove it");
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return refuse("belongs to another user; name a folder in it, which is made as needed");
        }
        if metadata.mode() & 0o077 != 0 {
            return refuse("can be used by others; `chmod 700` it, or name a folder in it, which is made as needed");
        }
        // Told once for the folder, not once for each file.
        self.path.read_dir().map(drop)
    }
}
