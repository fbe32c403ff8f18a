//! How busy this process keeps its processors.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A clock tick of `/proc`, in seconds: 100 a second on every Linux.
const TICK: f64 = 0.01;
/// What is said stands for so long: over less time it would say little.
const STANDS: Duration = Duration::from_secs(1);

/// Processor time of this process, from look to look.
pub struct Cpu(Mutex<Look>);

struct Look {
    at: Instant,
    seconds: f64,
    percent: f64,
}

impl Default for Cpu {
    fn default() -> Self {
        Self(Mutex::new(Look { at: Instant::now(), seconds: used(), percent: 0.0 }))
    }
}

impl Cpu {
    /// The share of all its processors that it used since the last look, 0 to 100; 0 where the system doesn't say.
    pub fn percent(&self) -> f64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = last.at.elapsed();
        if passed >= STANDS {
            let (seconds, processors) = (used(), std::thread::available_parallelism().map_or(1, usize::from));
            let share = (seconds - last.seconds) / (passed.as_secs_f64() * processors as f64);
            *last = Look { at: Instant::now(), seconds, percent: (share * 100.0).clamp(0.0, 100.0) };
        }
        last.percent
    }
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
    }
}
