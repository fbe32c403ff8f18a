//! What becomes of an owner that panics: it is begun again, ever later.

use std::any::Any;
use std::time::Duration;

/// Wait after the first failure of a partition; twice as long after each that follows.
pub const RESTART_AFTER: Duration = Duration::from_secs(5);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(300);
/// An owner that has run for so long has got over what made it fail before.
pub(super) const WELL_AFTER: Duration = Duration::from_secs(60);

/// How often a partition has failed without having run well in between.
pub(super) struct Failures {
    count: u32,
    /// Wait after the first.
    restart_after: Duration,
}

impl Failures {
    /// None yet; after the first this is waited.
    pub(super) fn new(restart_after: Duration) -> Self {
        Self { count: 0, restart_after }
    }

    /// Counts one, of an owner that has run for so long; how many there are, and what to wait before the next life.
    pub(super) fn add(&mut self, ran: Duration) -> (u32, Duration) {
        if ran >= WELL_AFTER {
            self.count = 0;
        }
        let doubled = self.restart_after.saturating_mul(1_u32.checked_shl(self.count).unwrap_or(u32::MAX));
        self.count = self.count.saturating_add(1);
        (self.count, doubled.min(RESTART_AFTER_MAX))
    }
}

pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_fails_again_waits_twice_as_long_until_it_has_run_well() {
        let mut failures = Failures::new(RESTART_AFTER);
        let mut add = |ran: u64| {
            let (count, wait) = failures.add(Duration::from_secs(ran));
            (count, wait.as_secs())
        };
        assert_eq!([0, 1, 59].map(&mut add), [(1, 5), (2, 10), (3, 20)]);
        let later: Vec<_> = (0..40).map(|_| add(1)).collect();
        assert_eq!((later[2], later[3], later[39]), ((6, 160), (7, 300), (43, 300)));
        assert_eq!([60, 0].map(add), [(1, 5), (2, 10)]);
    }
}
