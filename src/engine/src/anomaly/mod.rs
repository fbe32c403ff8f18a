//! How unlike what came before something is: samples of one series, and rows of features. Nothing is known of the future,
//! and nothing has to be set for a series.

mod moments;
mod rhythm;
mod rows;
mod series;
mod tail;

pub use rows::RowDetector;
pub use series::{Reading, SeriesDetector};
