//! Machines as their files tell of them, and how many workers each is worth.

use std::path::Path;
use std::{fs, thread};

use super::{HeldBack, Why, Workers, be_idle, decide, workers};

const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
/// As in a container of old: the machine's path outside, its end mounted.
const V1_CONTAINER: &str = "32 31 0:29 /kubepods/pod1/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

/// A machine: which processors, its groups, its mounts, and the files below `/sys/fs/cgroup`.
struct Machine {
    processors: &'static str,
    groups: &'static str,
    mounts: &'static str,
    files: &'static [(&'static str, &'static str)],
}

const PLAIN: Machine = Machine { processors: "0-7", groups: "0::/\n", mounts: V2, files: &[] };

impl Machine {
    fn read(&self, path: &Path) -> Option<String> {
        match path.to_str()? {
            "/proc/self/status" => {
                Some(format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{}\n", self.processors))
            }
            "/proc/self/cgroup" => Some(self.groups.to_owned()),
            "/proc/self/mountinfo" => Some(format!("1 0 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n{}", self.mounts)),
            file => {
                let file = file.strip_prefix("/sys/fs/cgroup/")?;
                self.files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
            }
        }
    }
}

fn check(case: &str, machine: &Machine, in_kubernetes: bool, count: usize, why: Why) {
    assert_eq!(decide(in_kubernetes, |path| machine.read(path)), Workers { count, why }, "{case}");
}

#[test]
fn without_a_limit_the_processors_count() {
    for (processors, count) in [("0", 1), ("0-1", 2), ("0,2,4", 3), ("0-1,8-9", 4)] {
        check(processors, &Machine { processors, ..PLAIN }, false, count, Why::Processors(count));
        check(processors, &Machine { processors, ..PLAIN }, true, 1, Why::NoLimitInKubernetes);
    }
    check("0-63", &Machine { processors: "0-63", ..PLAIN }, false, 4, Why::Most);
    for garbage in ["", "x", "3-1", "0-", "-1", "0--3"] {
        check(garbage, &Machine { processors: garbage, ..PLAIN }, false, 1, Why::Processors(1));
    }
}

#[test]
fn limits_of_version_2() {
    type Files = &'static [(&'static str, &'static str)];
    let table: [(&str, &str, Files, usize, Option<u64>); 12] = [
        ("a whole number", "0::/\n", &[("cpu.max", "200000 100000\n")], 2, Some(2000)),
        ("rounded up", "0::/\n", &[("cpu.max", "150000 100000\n")], 2, Some(1500)),
        ("just above", "0::/\n", &[("cpu.max", "100001 100000\n")], 1, Some(1000)),
        ("very little", "0::/\n", &[("cpu.max", "1000 100000\n")], 1, Some(10)),
        ("another period", "0::/\n", &[("cpu.max", "30000 10000\n")], 3, Some(3000)),
        ("below the top", "0::/a/b\n", &[("a/b/cpu.max", "100000 100000\n")], 1, Some(1000)),
        (
            "a parent is tighter",
            "0::/a/b\n",
            &[("a/b/cpu.max", "300000 100000\n"), ("a/cpu.max", "200000 100000\n")],
            2,
            Some(2000),
        ),
        (
            "only a parent",
            "0::/a/b\n",
            &[("a/b/cpu.max", "max 100000\n"), ("a/cpu.max", "200000 100000\n")],
            2,
            Some(2000),
        ),
        ("outside of what is mounted", "0::/../other\n", &[("cpu.max", "200000 100000\n")], 2, Some(2000)),
        ("max", "0::/\n", &[("cpu.max", "max 100000\n")], 4, None),
        ("no such file", "0::/\n", &[], 4, None),
        ("not a namespace of version 2", "garbage\n::\n0\n", &[("cpu.max", "100000 100000\n")], 4, None),
    ];
    for (case, groups, files, count, limit) in table {
        let why = limit.map_or(Why::Most, Why::Limit);
        check(case, &Machine { groups, files, ..PLAIN }, false, count, why);
    }
    for garbage in
        ["", "100000", "x y", "100000 0", "0 100000", "-1 100000", "99999999999999999999 1", "18446744073709551615 1"]
    {
        let text: &'static str = garbage;
        let machine = Machine { files: Box::leak(Box::new([("cpu.max", text)])), ..PLAIN };
        check(garbage, &machine, true, 1, Why::NoLimitInKubernetes);
    }
}

#[test]
fn limits_of_version_1() {
    let groups = "5:cpuset:/\n4:cpu,cpuacct:/kubepods/pod1/c1\n1:name=systemd:/\n";
    let own: &[_] = &[
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_quota_us", "250000\n"),
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_period_us", "100000\n"),
    ];
    check("its own", &Machine { groups, mounts: V1, files: own, ..PLAIN }, true, 3, Why::Limit(2500));
    let none: &[_] = &[
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_quota_us", "-1\n"),
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_period_us", "100000\n"),
    ];
    check("none", &Machine { groups, mounts: V1, files: none, ..PLAIN }, true, 1, Why::NoLimitInKubernetes);
    let pods: &[_] = &[
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_quota_us", "-1\n"),
        ("cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_period_us", "100000\n"),
        ("cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us", "200000\n"),
        ("cpu,cpuacct/kubepods/pod1/cpu.cfs_period_us", "100000\n"),
    ];
    check("the pod's", &Machine { groups, mounts: V1, files: pods, ..PLAIN }, true, 2, Why::Limit(2000));
    let container: &[_] = &[("cpu/cpu.cfs_quota_us", "50000\n"), ("cpu/cpu.cfs_period_us", "100000\n")];
    let groups = "4:cpu:/kubepods/pod1/c1\n";
    check(
        "in a container",
        &Machine { groups, mounts: V1_CONTAINER, files: container, ..PLAIN },
        true,
        1,
        Why::Limit(500),
    );
    // Version 2 is there as well, for other controllers.
    let groups = "4:cpu:/\n0::/init.scope\n";
    check("both versions", &Machine { groups, mounts: HYBRID, files: container, ..PLAIN }, true, 1, Why::Limit(500));
}

#[test]
fn processors_bound_a_limit_and_both_are_bounded() {
    let limit = |text: &'static str| Box::leak(Box::new([("cpu.max", text)])) as &[_];
    let two = Machine { processors: "0-1", ..PLAIN };
    check("fewer processors", &Machine { files: limit("300000 100000"), ..two }, true, 2, Why::Processors(2));
    let two = Machine { processors: "0-1", ..PLAIN };
    check("as many", &Machine { files: limit("200000 100000"), ..two }, true, 2, Why::Limit(2000));
    check("many", &Machine { files: limit("600000 100000"), ..PLAIN }, true, 4, Why::Most);
}

#[test]
fn this_machine_can_be_read() {
    assert!((1..=4).contains(&workers(false).count));
}

#[test]
fn a_reason_is_told() {
    let table = [
        (Why::Setting, "settings.workers"),
        (Why::Limit(1500), "a CPU limit of 1500m"),
        (Why::NoLimitInKubernetes, "no CPU limit in Kubernetes"),
        (Why::Processors(2), "2 processors"),
        (Why::Most, "at most 4 unasked"),
    ];
    for (why, text) in table {
        assert_eq!(why.to_string(), text);
    }
}

#[test]
fn how_often_this_process_was_held_back() {
    const STAT: &str = "nr_periods 20\nnr_throttled 7\nthrottled_usec 5\n";
    const ONE: &[(&str, &str)] = &[("cpu,cpuacct/a/cpu.stat", STAT), ("cpu,cpuacct/cpu.stat", "nr_throttled 2\n")];
    let table: [(&str, Machine, u64); 4] = [
        ("no file", PLAIN, 0),
        (
            "its own and above",
            Machine {
                groups: "0::/a\n",
                files: &[("a/cpu.stat", "nr_throttled 7\n"), ("cpu.stat", "nr_throttled 1\n")],
                ..PLAIN
            },
            8,
        ),
        ("version 1", Machine { groups: "4:cpu,cpuacct:/a\n", mounts: V1, files: ONE, ..PLAIN }, 9),
        ("garbage", Machine { files: &[("cpu.stat", "nr_throttled x\n")], ..PLAIN }, 0),
    ];
    for (case, machine, expected) in table {
        let read = |path: &Path| machine.read(path);
        assert_eq!(HeldBack::of(&read).times_of(&read), expected, "{case}");
    }
}

#[test]
fn a_thread_that_is_idle_is_so_by_its_policy() {
    let idle = || {
        be_idle();
        fs::read_to_string("/proc/thread-self/stat").unwrap()
    };
    let stat = thread::spawn(idle).join().unwrap();
    // Field 41, and SCHED_IDLE (proc_pid_stat(5), sched(7)); behind the name in brackets is field 3.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    assert_eq!(fields.split(' ').nth(41 - 3), Some("5"), "{stat}");
}
