//! What the measurements of the engine share: processor time and streams.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

/// Seconds that this thread has run: what other work does on the machine doesn't count.
pub fn seconds() -> f64 {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    ran.tv_sec as f64 + ran.tv_nsec as f64 / 1e9
}

/// The rows and classes of a stream: a line an event, numbers separated by commas, the class last.
pub fn read_stream(path: &Path) -> Result<Vec<(Vec<f64>, usize)>> {
    let text = std::fs::read_to_string(path)?;
    text.lines()
        .map(|line| {
            let (features, class) = line.rsplit_once(',').ok_or_else(|| bad(line))?;
            let values: Option<Vec<f64>> = features.split(',').map(|value| value.parse().ok()).collect();
            Ok((values.ok_or_else(|| bad(line))?, class.parse().map_err(|_| bad(line))?))
        })
        .collect()
}

/// Numbers of four bytes, little-endian.
pub fn read_floats(path: &Path) -> Result<Vec<f32>> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}
