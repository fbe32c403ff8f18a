//! How busy this process keeps its processors, and how busy they are.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A clock tick of `/proc`, in seconds: 100 a second on every Linux.
const TICK: f64 = 0.01;
/// What is said stands for so long: over less time it would say little.
const STANDS: Duration = Duration::from_secs(1);

/// Processor time, from look to look.
pub struct Cpu(Mutex<Look>);

struct Look {
    at: Instant,
    seconds: f64,
    ticks: Ticks,
    load: Load,
}

/// How much of the processors is used, 0 to 100; 0 where the system doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Of all that this process may use, by this process.
    pub process: f64,
    /// Of all that the machine has, by everybody.
    pub machine: f64,
}

/// Clock ticks of all processors since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Default for Cpu {
    fn default() -> Self {
        let (at, seconds, ticks) = (Instant::now(), used(), machine());
        Self(Mutex::new(Look { at, seconds, ticks, load: Load::default() }))
    }
}

impl Cpu {
    /// What was used since the last look.
    pub fn load(&self) -> Load {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = last.at.elapsed();
        if passed >= STANDS {
            let (seconds, processors) = (used(), std::thread::available_parallelism().map_or(1, usize::from));
            let percent = |share: f64| (share * 100.0).clamp(0.0, 100.0);
            let ticks = machine();
            let load = Load {
                process: percent((seconds - last.seconds) / (passed.as_secs_f64() * processors as f64)),
                machine: percent(busy(last.ticks, ticks)),
            };
            *last = Look { at: Instant::now(), seconds, ticks, load };
        }
        last.load
    }
}

fn machine() -> Ticks {
    ticks(&std::fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default()
}

/// The line of all processors: user, nice, system, idle, waiting for a disk, two kinds of interrupts, stolen.
fn ticks(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let fields: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    Some(Ticks { all: fields.iter().sum(), idle: fields.get(3)? + fields.get(4)? })
}

/// The share of the ticks between two looks, 0 to 1, that weren't idle.
fn busy(before: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(before.all);
    if all == 0 { 0.0 } else { 1.0 - now.idle.saturating_sub(before.idle) as f64 / all as f64 }
}

fn used() -> f64 {
    seconds(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()).unwrap_or(0.0)
}

/// User and system time. The name in front may hold anything, so what follows its last parenthesis counts.
fn seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 * TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(seconds(stat), Some(2.0));
        assert_eq!(seconds("7 (a"), None);
        let now = ticks("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1 2 3\n").unwrap();
        assert_eq!(now, Ticks { all: 1_000, idle: 850 });
        assert_eq!(busy(Ticks { all: 900, idle: 825 }, now), 0.75);
        assert_eq!((busy(now, now), ticks("")), (0.0, None));
    }
}
