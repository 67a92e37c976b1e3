//! Writes the files that are made of the types of the API below the folder that is named, or this one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use postern_crds::generate::files;

fn main() -> Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    for file in files()? {
        let path = root.join(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
