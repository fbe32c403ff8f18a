//! A file of JSON lines in the folder that the administrator has set aside.

use hebb_api::FileReceiver;
use tokio::fs::{OpenOptions, metadata, rename};
use tokio::io::AsyncWriteExt;

use super::Edges;
use crate::message::Message;
use crate::retry::{FailureKind, SendError};

/// Bytes of a file; then it gets the ending `.1`, and the one that had it before is gone.
const FILE_MAX: u64 = 16 << 20;

pub(super) async fn append(file: &FileReceiver, message: &Message, edges: &Edges) -> Result<(), SendError> {
    let Some(folder) = &edges.files else {
        return Err(SendError::permanent(FailureKind::File, "the administrator has set no folder aside for files"));
    };
    // The definition says so too, but a folder must not depend on who checked an object.
    let plain = file.name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && file.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !plain {
        return Err(SendError::permanent(FailureKind::File, "the file's name isn't plain"));
    }
    let path = folder.join(&file.name);
    let failed =
        |error: std::io::Error| SendError::transient(FailureKind::File, format!("can't write: {}", error.kind()));
    if metadata(&path).await.is_ok_and(|metadata| FILE_MAX <= metadata.len()) {
        rename(&path, folder.join(format!("{}.1", file.name))).await.map_err(failed)?;
    }
    let mut line = serde_json::to_string(message)
        .map_err(|_| SendError::permanent(FailureKind::Content, "the message is no JSON"))?;
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).open(&path).await.map_err(failed)?;
    file.write_all(line.as_bytes()).await.map_err(failed)?;
    file.sync_data().await.map_err(failed)
}
