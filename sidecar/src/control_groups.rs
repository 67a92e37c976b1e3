//! Limits of the control groups that this process is in: its own, and those of all groups above it that can be seen.
//!
//! The facts are texts of the kernel, and everything but reading them is a function of those texts.

use std::fs;
use std::path::{Path, PathBuf};

/// Limits of memory from here on are none: version 1 writes the largest number of pages there is.
const NO_MEMORY_LIMIT: u64 = 1 << 60;

/// A version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// The memory limit in bytes that this process falls under, if there is one.
pub fn memory_limit() -> Option<u64> {
    memory_limit_of(&|path| fs::read_to_string(path).ok())
}

/// The same for what is read from a machine's files.
fn memory_limit_of(read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limit = |version, folder: &Path| {
        let file = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        // Without a limit version 2 says `max`, which is no number.
        let bytes = read(&folder.join(file))?.trim().parse::<u64>().ok();
        bytes.filter(|bytes| *bytes < NO_MEMORY_LIMIT)
    };
    least("memory", read, limit)
}

/// The least of a controller's limits of the process's group and of all groups above it that can be seen.
pub fn least(
    controller: &str,
    read: &impl Fn(&Path) -> Option<String>,
    limit: impl Fn(Version, &Path) -> Option<u64>,
) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let limits = groups.lines().filter_map(|line| {
        // hierarchy:controllers:path (cgroups(7)); version 2 is hierarchy 0, without controllers.
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match (hierarchy, controllers) {
            ("0", "") => Version::Two,
            (_, controllers) if controllers.split(',').any(|name| name == controller) => Version::One,
            _ => return None,
        };
        let (folder, top) = folder(&mounts, version, controller, path)?;
        let above = folder.ancestors().take_while(|folder| folder.starts_with(&top));
        above.filter_map(|folder| limit(version, folder)).min()
    });
    limits.min()
}

/// Where a group's files are, and the topmost folder of its hierarchy that is mounted.
fn folder(mounts: &str, version: Version, controller: &str, group: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // id parent device root mount-point options … - type source options (proc_pid_mountinfo(5)).
        let (mount, kind) = line.split_once(" - ")?;
        let (mut mount, mut kind) = (mount.split(' ').skip(3), kind.split(' '));
        let (root, point) = (mount.next()?, mount.next()?);
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == controller),
            Version::Two => kind == "cgroup2",
        };
        if !is_it {
            return None;
        }
        let top = PathBuf::from(point);
        // In a container without a namespace of its own the group's path is the machine's, and only its end is mounted.
        let below = Path::new(group).strip_prefix(root).or_else(|_| Path::new(group).strip_prefix("/")).ok()?;
        // A path that leads out of what is mounted is nobody's here.
        let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        Some((if is_plain { top.join(below) } else { top.clone() }, top))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{memory_limit, memory_limit_of};

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    /// As in a container of old: the machine's path outside, its end mounted.
    const V1_CONTAINER: &str = "32 31 0:29 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn limit(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        memory_limit_of(&|path: &Path| match path.to_str()? {
            "/proc/self/cgroup" => Some(groups.to_owned()),
            "/proc/self/mountinfo" => Some(format!("1 0 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n{mounts}")),
            file => {
                let file = file.strip_prefix("/sys/fs/cgroup/")?;
                files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
            }
        })
    }

    type Files = &'static [(&'static str, &'static str)];

    #[test]
    fn the_least_limit_of_memory_on_the_way_counts() {
        let own: Files = &[("a/b/memory.max", "67108864\n"), ("a/memory.max", "max\n")];
        let above: Files = &[("a/b/memory.max", "67108864\n"), ("a/memory.max", "33554432\n")];
        let only_above: Files = &[("a/b/memory.max", "max\n"), ("memory.max", "33554432\n")];
        let nested: Files = &[
            ("memory/a/b/memory.limit_in_bytes", "67108864\n"),
            ("memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.limit_in_bytes", "50000000\n"),
        ];
        let one: Files = &[("memory/memory.limit_in_bytes", "67108864\n")];
        let none: Files = &[("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")];
        let rows = [
            ("its own", "0::/a/b\n", V2, own, Some(64 << 20)),
            ("one above is tighter", "0::/a/b\n", V2, above, Some(32 << 20)),
            ("only the topmost has one", "0::/a/b\n", V2, only_above, Some(32 << 20)),
            ("none", "0::/a/b\n", V2, &[("a/b/memory.max", "max\n")], None),
            ("no file", "0::/\n", V2, &[], None),
            ("garbage", "0::/\n", V2, &[("memory.max", "-1\n")], None),
            ("version 1, nested", "4:memory:/a/b\n0::/\n", V1, nested, Some(50_000_000)),
            ("version 1, in a container", "4:memory:/kubepods/pod1/c1\n", V1_CONTAINER, one, Some(64 << 20)),
            ("version 1 beside 2", "4:memory:/\n0::/init.scope\n", HYBRID, one, Some(64 << 20)),
            ("version 1, none", "4:memory:/a/b\n", V1, none, None),
            ("of another controller", "4:cpu:/\n", V1, one, None),
        ];
        for (case, groups, mounts, files, expected) in rows {
            assert_eq!(limit(groups, mounts, files), expected, "{case}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(memory_limit().is_none_or(|limit| limit > 1 << 20));
    }
}
