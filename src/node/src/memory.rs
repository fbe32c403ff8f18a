//! How much memory this process has and may have.

use serde::{Deserialize, Serialize};

/// Where a container finds its limit: control groups of version 2, and of version 1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// Version 1 writes a number near the greatest where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident bytes; 0 where the system doesn't say.
    pub bytes: u64,
    /// The limit of its container in bytes, if it has one.
    pub limit: Option<u64>,
}

impl Memory {
    /// That of this process, now.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limit = LIMITS.iter().find_map(|path| limit(&std::fs::read_to_string(path).ok()?));
        Self { bytes: resident(&status).unwrap_or(0), limit }
    }

    /// The share of the limit that is taken, 0 to 1; nothing without a limit.
    pub fn ratio(&self) -> Option<f64> {
        self.limit.map(|limit| self.bytes as f64 / limit as f64)
    }
}

/// The share of the machine's memory that is taken, 0 to 100; nothing where the system doesn't say.
pub fn machine_percent() -> Option<f64> {
    taken(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn taken(meminfo: &str) -> Option<f64> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
    };
    let (all, available) = (of("MemTotal").filter(|all| *all > 0.0)?, of("MemAvailable")?);
    Some(((1.0 - available / all) * 100.0).clamp(0.0, 100.0))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| (1..NO_LIMIT).contains(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood_and_no_limit_is_none() {
        assert_eq!(resident("Name:\thebb\nVmRSS:\t   38000 kB\n"), Some(38_912_000));
        assert_eq!(resident("Name:\thebb\n"), None);
        assert_eq!(taken("MemTotal:  1000 kB\nMemFree: 5 kB\nMemAvailable:  250 kB\n"), Some(75.0));
        assert_eq!(taken("MemTotal:  1000 kB\n"), None);
        assert_eq!(limit("268435456\n"), Some(268_435_456));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("0\n"), None);
        assert_eq!(Memory { bytes: 50, limit: Some(200) }.ratio(), Some(0.25));
        assert_eq!(Memory { bytes: 50, limit: None }.ratio(), None);
    }
}
