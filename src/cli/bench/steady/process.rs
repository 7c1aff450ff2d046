//! What Linux tells of processes.

use std::time::Duration;

/// The memory that a process has resident, in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// The CPU time of a process and all its children, living and dead, to 10 ms.
pub(super) fn family_cpu(parent: u32) -> Option<Duration> {
    let own = Stat::of(parent)?;
    let mut ticks = own.own + own.of_dead_children;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(stat) = pid.and_then(Stat::of)
            && stat.parent == parent
        {
            ticks += stat.own;
        }
    }
    Some(Duration::from_millis(ticks * 10))
}

/// The process that a process was started by.
pub(super) fn parent(pid: u32) -> Option<u32> {
    Stat::of(pid).map(|stat| stat.parent)
}

/// Of the last minute.
pub(super) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

struct Stat {
    parent: u32,
    own: u64,
    of_dead_children: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name, in brackets, may hold anything; what counts comes after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own: number(11)? + number(12)?,
            of_dead_children: number(13)? + number(14)?,
        })
    }
}
