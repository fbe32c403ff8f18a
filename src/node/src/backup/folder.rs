//! The folder of backups: a file appears in it whole or not at all, and old ones go when there are enough.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hebb_engine::Partition;
use hebb_log::Domain;
use serde::Serialize;

use super::format::{Block, FormatError, Head, PartitionHead, Reader, digest};

/// How the names of backups end.
const SUFFIX: &str = ".hebb";
/// How the names of files that are being written end.
const PARTIAL: &str = ".partial";
/// Files of a folder that are looked at.
const FILES_MAX: usize = 10_000;
/// A file that nobody has written to for so long is left over from a run that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(2 * 3_600);
/// Bytes of the buffer between program and disk.
const BUFFER: usize = 1 << 20;

/// What went wrong with a folder or a file in it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder can't be read or written.
    #[error("can't use {}", path.display())]
    Io {
        /// What was to be used.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file of that name is there already.
    #[error("there is a backup {0} already")]
    Exists(String),
    /// No file that can be restored.
    #[error("{} holds no complete backup{broken}", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the newest that is there, if one is.
        broken: String,
    },
    /// It isn't clear which is meant.
    #[error("{} holds backups of several clusters ({clusters}): name the one to restore", path.display())]
    Several {
        /// The folder.
        path: PathBuf,
        /// The clusters.
        clusters: String,
    },
    /// Not a file of the folder.
    #[error("{0:?} is no name of a backup")]
    Name(String),
    /// The file can't be used.
    #[error("the backup {name} can't be used")]
    Backup {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: FormatError,
    },
}

/// What a complete backup holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its name.
    pub backup: String,
    /// Whose it is, and since when.
    #[serde(flatten)]
    pub head: Head,
    /// Bytes of the file.
    pub bytes: u64,
    /// The domains.
    #[serde(skip)]
    pub domains: Vec<Domain>,
    /// The partitions of all domains.
    pub partitions: Vec<PartitionHead>,
}

/// A file of the folder.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What it holds, or why it can't be used.
    pub content: Result<Summary, FormatError>,
}

fn using(path: &Path) -> impl Fn(std::io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// The name of a backup: cluster, then time, to the millisecond and so that names sort by it.
pub fn name(head: &Head) -> String {
    format!("{}-{}{SUFFIX}", head.cluster, head.created_at.strftime("%Y%m%dT%H%M%S%3fZ"))
}

/// Opens a backup of the folder.
pub fn open(folder: &Path, name: &str) -> Result<Reader<BufReader<File>>, FolderError> {
    if !name.ends_with(SUFFIX) || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(FolderError::Name(name.to_owned()));
    }
    let path = folder.join(name);
    let file = File::open(&path).map_err(using(&path))?;
    Reader::open(BufReader::with_capacity(BUFFER, file))
        .map_err(|source| FolderError::Backup { name: name.to_owned(), source })
}

/// Reads a backup to its end, restores each state in memory, and says what it holds.
///
/// # Errors
/// [`FolderError::Backup`] where a byte is wrong, or a state is of a version that this engine can't read.
pub fn check(folder: &Path, name: &str) -> Result<Summary, FolderError> {
    let mut reader = open(folder, name)?;
    let path = folder.join(name);
    let bytes = fs::metadata(&path).map_err(using(&path))?.len();
    let broken = |source| FolderError::Backup { name: name.to_owned(), source };
    let (mut domains, mut partitions) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next().map_err(broken)? {
        match block {
            Block::Domain(domain) => domains.push(domain),
            Block::Partition(head, state) => {
                check_state(&head, &state).map_err(broken)?;
                partitions.push(head);
            }
        }
    }
    let expected: Vec<(&str, u32)> =
        domains.iter().flat_map(|domain| (0..domain.partitions).map(|index| (domain.name.as_str(), index))).collect();
    let held: Vec<(&str, u32)> =
        partitions.iter().map(|partition| (partition.domain.as_str(), partition.index)).collect();
    if expected != held {
        return Err(broken(FormatError::corrupt("its partitions are not those of its domains")));
    }
    Ok(Summary { backup: name.to_owned(), head: reader.head().clone(), bytes, domains, partitions })
}

fn check_state(head: &PartitionHead, state: &[u8]) -> Result<(), FormatError> {
    let named = |what: &dyn std::fmt::Display| FormatError::corrupt(format!("{}/{}: {what}", head.domain, head.index));
    if digest(state) != head.digest {
        return Err(named(&"its state has another digest"));
    }
    let partition = Partition::restore(state).map_err(|error| named(&error))?;
    let statistics = partition.statistics();
    let said = (head.position, head.events, head.applied_digest);
    if said != (statistics.position, statistics.events, statistics.applied_digest) {
        return Err(named(&"its state isn't what its head says"));
    }
    Ok(())
}

/// All files of the folder that are called like backups, the oldest first.
///
/// # Errors
/// [`FolderError::Io`] where the folder can't be read.
pub fn list(folder: &Path) -> Result<Vec<Found>, FolderError> {
    let mut found = Vec::new();
    for name in names(folder, |name| name.ends_with(SUFFIX) && !name.starts_with('.'))? {
        let content = match check(folder, &name) {
            Ok(summary) => Ok(summary),
            Err(FolderError::Backup { source, .. }) => Err(source),
            Err(FolderError::Io { source, .. }) => Err(FormatError::Io(source)),
            Err(error) => return Err(error),
        };
        found.push(Found { name, content });
    }
    found.sort_by_key(|found| {
        let created = found.content.as_ref().map(|summary| summary.head.created_at).unwrap_or_default();
        (created, found.name.clone())
    });
    Ok(found)
}

fn names(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, FolderError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(using(folder))?.take(FILES_MAX) {
        let entry = entry.map_err(using(folder))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| wanted(name)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The backup that is meant: the one of this name, else the newest complete one.
///
/// # Errors
/// [`FolderError`] where there is none, or it can't be used, or it isn't clear which.
pub fn choose(folder: &Path, wanted: Option<&str>) -> Result<Summary, FolderError> {
    if let Some(name) = wanted {
        return check(folder, name);
    }
    let mut broken = String::new();
    let mut complete = Vec::new();
    for found in list(folder)? {
        match found.content {
            Ok(summary) => complete.push(summary),
            Err(error) => broken = format!("; {}: {error}", found.name),
        }
    }
    let mut clusters: Vec<&str> = complete.iter().map(|summary| summary.head.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    if clusters.len() > 1 {
        return Err(FolderError::Several { path: folder.to_owned(), clusters: clusters.join(", ") });
    }
    complete.pop().ok_or_else(|| FolderError::Nothing { path: folder.to_owned(), broken })
}

/// A file that is being written. Dropped before [`Pending::publish`], it is removed.
pub struct Pending {
    folder: PathBuf,
    name: String,
    partial: PathBuf,
}

impl Pending {
    /// Begins a file under a name that no backup has.
    pub fn begin(folder: &Path, name: String) -> Result<(Self, BufWriter<File>), FolderError> {
        fs::create_dir_all(folder).map_err(using(folder))?;
        if folder.join(&name).exists() {
            return Err(FolderError::Exists(name));
        }
        let partial = folder.join(format!(".{name}{PARTIAL}"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).map_err(using(&partial))?;
        Ok((Self { folder: folder.to_owned(), name, partial }, BufWriter::with_capacity(BUFFER, file)))
    }

    /// Gives the file its name, once it is on the disk.
    pub fn publish(self, file: BufWriter<File>) -> Result<(), FolderError> {
        let file = file.into_inner().map_err(|error| using(&self.partial)(error.into_error()))?;
        file.sync_all().map_err(using(&self.partial))?;
        let path = self.folder.join(&self.name);
        fs::rename(&self.partial, &path).map_err(using(&path))?;
        // The name is in the folder, and the folder has to reach the disk too.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(using(&self.folder))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        fs::remove_file(&self.partial).ok();
    }
}

/// Removes the oldest complete backups of a cluster but `keep`, and what killed runs of it have left; the names of what went.
///
/// # Errors
/// [`FolderError::Io`].
pub fn prune(folder: &Path, cluster: &str, keep: usize) -> Result<Vec<String>, FolderError> {
    let mut own = Vec::new();
    for found in list(folder)? {
        // What can't be read, or was renamed, is for a person to look at.
        if let Ok(summary) = found.content
            && summary.head.cluster == cluster
            && found.name == name(&summary.head)
        {
            own.push(found.name);
        }
    }
    own.truncate(own.len().saturating_sub(keep));
    let left = names(folder, |name| name.starts_with(&format!(".{cluster}-")) && name.ends_with(PARTIAL))?;
    let abandoned = left.into_iter().filter(|name| {
        let written_at = fs::metadata(folder.join(name)).and_then(|file| file.modified());
        let silent = written_at.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        silent.is_some_and(|silent| silent > ABANDONED_AFTER)
    });
    own.extend(abandoned);
    for name in &own {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            // Another run was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(using(&path)(error)),
        }
    }
    Ok(own)
}
