//! Which files the `mod` lines reach from the crate roots, and which nobody compiles.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::scan::{Finding, declared_module, finding};
use super::source::{SourceFile, Workspace};

/// Files that no `mod` line reaches.
pub(crate) fn orphans(workspace: &Workspace) -> Vec<Finding> {
    let root = workspace.metadata.workspace_root.as_std_path();
    let packages = workspace.metadata.workspace_packages();
    let targets = packages.iter().flat_map(|package| &package.targets);
    let roots = targets.filter_map(|target| target.src_path.as_std_path().strip_prefix(root).ok());
    let mut roots: Vec<_> = roots.map(Path::to_owned).collect();
    // A workspace of its own, whose manifest names its targets.
    let fuzz = workspace.text("fuzz/Cargo.toml");
    let paths = fuzz.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    roots.extend(paths.map(|path| Path::new("fuzz").join(path)));
    unreached(&roots, &workspace.sources)
}

/// Files among `sources` that no `mod` line reaches from these crate roots.
pub(crate) fn unreached(roots: &[PathBuf], sources: &[SourceFile]) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    for root in roots {
        let folder = root.parent().unwrap_or(Path::new(""));
        reach(root, folder, sources, &mut reached);
    }
    let left = sources.iter().filter(|file| !reached.contains(&file.path));
    left.map(|file| finding(&file.path, 1, "nothing compiles this file: add a `mod` line for it or remove it"))
        .collect()
}

/// Marks a file and, in the folder its modules live in, all that its `mod` lines name.
fn reach(path: &Path, folder: &Path, sources: &[SourceFile], reached: &mut BTreeSet<String>) {
    let Some(file) = sources.iter().find(|file| Path::new(&file.path) == path) else { return };
    if !reached.insert(file.path.clone()) {
        return;
    }
    let declarations = file.lines().filter(|(_, line)| line.trim_end().ends_with(';'));
    for name in declarations.filter_map(|(_, line)| declared_module(line)) {
        let inner = folder.join(name);
        reach(&inner.with_extension("rs"), &inner, sources, reached);
        reach(&inner.join("mod.rs"), &inner, sources, reached);
    }
}
