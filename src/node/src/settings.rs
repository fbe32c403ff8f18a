//! What the nodes take from a LearningCluster.

/// Placeholder until the resource types are in.
pub struct ClusterSettings;
/// Placeholder.
pub struct SettingsError;
