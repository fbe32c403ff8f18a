//! The `hebb` binary.
fn main() {}
