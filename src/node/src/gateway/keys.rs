//! API keys: who a request is from.
//!
//! A key is 256 random bits, and only its SHA-256 is kept. A slow hash would add nothing: it is for passwords, which can be
//! guessed, and it would let anybody make a gateway work hard with keys that are wrong.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::limits::Limits;
use super::reply::equal;
use crate::stop::Stop;

/// Keys of one gateway: each request is compared with every one of them, in a few microseconds.
const KEYS_MAX: usize = 1_000;
/// Bytes of all files with keys: a thousand lines of the longest names need a quarter of it.
const TEXT_MAX: u64 = 1 << 20;
/// Characters of a name or of a tier.
const NAME_MAX: usize = 63;
/// How often the files are looked at. Kubernetes takes a minute or so to bring a changed Secret into a pod.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What the name of every key begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "hebb_";
/// What stands before the digest in a line.
const SCHEME: &str = "sha256:";
/// In place of a tier where there is none.
const NO_TIER: &str = "-";

/// Who a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// Keys of one name share a limit: while one replaces the other both work.
    pub name: Arc<str>,
    /// The limit that it has; none for that of everybody.
    pub tier: Option<Arc<str>>,
}

/// A line of a file with keys: `name tier sha256:digest`, with `-` for no tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLine {
    owner: KeyOwner,
    digest: [u8; 32],
}

/// Why a line or a name isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a name.
    #[error(
        "{0:?} is no name for a client or a tier: 1 to {NAME_MAX} letters, digits, '.', '_', '@' and '-', not '-' alone"
    )]
    Name(String),
    /// Not a line. What stands there isn't repeated: it may be a key that somebody put there by mistake.
    #[error("is not `name tier sha256:digest` as `hebb keys new` prints it")]
    Line,
}

impl KeyLine {
    /// A new key, which is nowhere but here, and the line for it.
    ///
    /// # Errors
    /// [`KeyError::Name`]
    pub fn new(name: &str, tier: Option<&str>) -> Result<(String, Self), KeyError> {
        let owner = KeyOwner { name: checked(name)?, tier: tier.map(checked).transpose()? };
        let key = format!("{PREFIX}{}", hex(&rand::random::<[u8; 32]>()));
        let digest = Sha256::digest(&key).into();
        Ok((key, Self { owner, digest }))
    }
}

impl fmt::Display for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyOwner { name, tier } = &self.owner;
        write!(f, "{name} {} {SCHEME}{}", tier.as_deref().unwrap_or(NO_TIER), hex(&self.digest))
    }
}

impl FromStr for KeyLine {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, tier, digest] = words[..] else { return Err(KeyError::Line) };
        let digest = digest.strip_prefix(SCHEME).and_then(unhex).ok_or(KeyError::Line)?;
        let tier = (tier != NO_TIER).then(|| checked(tier)).transpose()?;
        Ok(Self { owner: KeyOwner { name: checked(name)?, tier }, digest })
    }
}

fn checked(name: &str) -> Result<Arc<str>, KeyError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    let good = (1..=NAME_MAX).contains(&name.len()) && name != NO_TIER && name.chars().all(allowed);
    if good { Ok(name.into()) } else { Err(KeyError::Name(name.to_owned())) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The keys that are good.
#[derive(Debug, Default, PartialEq)]
pub struct Keys {
    lines: Vec<KeyLine>,
    /// What is wrong with the other lines, by their numbers.
    problems: Vec<(usize, String)>,
}

impl Keys {
    /// Reads lines. Empty ones and those that begin with `#` say nothing; a bad one lets nobody in, and the others count.
    pub fn parse(text: &str) -> Self {
        let mut keys = Self::default();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(_) if keys.lines.len() == KEYS_MAX => {
                    keys.problems.push((number + 1, format!("there are more than {KEYS_MAX} keys")));
                    break;
                }
                Ok(line) => keys.lines.push(line),
                Err(why) => keys.problems.push((number + 1, why.to_string())),
            }
        }
        keys
    }

    /// Whose key this is. The time that it takes tells nothing of any digest.
    pub fn owner(&self, key: &str) -> Option<&KeyOwner> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for line in &self.lines {
            if equal(&line.digest, &digest) {
                found = Some(&line.owner);
            }
        }
        found
    }

    /// Whose tier these limits don't name.
    fn beyond(&self, limits: &Limits) -> impl Iterator<Item = &KeyOwner> {
        let is_named = |owner: &KeyOwner| owner.tier.as_deref().is_none_or(|tier| limits.has(tier));
        self.lines.iter().map(|line| &line.owner).filter(move |owner| !is_named(owner))
    }
}

/// The keys in a file or in a folder of files, as they are now.
pub struct KeyRing {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
}

impl KeyRing {
    /// Reads the keys.
    ///
    /// # Errors
    /// What the system says where they can't be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let keys = read(&path)?;
        say(&path, &keys);
        Ok(Self { path, keys: RwLock::new(Arc::new(keys)) })
    }

    /// The keys of now.
    pub fn now(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what changes, until the stop, and says of each load which keys have a tier that the limits don't name. What
    /// can't be read changes nothing.
    pub async fn follow(&self, limits: Option<&Limits>, mut stop: Stop) {
        self.say_tiers(&self.now(), limits);
        let mut readable = true;
        while !stop.is_asked() {
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let path = self.path.clone();
            let found = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other).flatten();
            match found {
                Ok(keys) => {
                    readable = true;
                    if keys != *self.now() {
                        say(&self.path, &keys);
                        self.say_tiers(&keys, limits);
                        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                    }
                }
                Err(error) if readable => {
                    readable = false;
                    warn!(path = %self.path.display(), %error, "the API keys can't be read any more; those of before count");
                }
                Err(_) => {}
            }
        }
    }

    fn say_tiers(&self, keys: &Keys, limits: Option<&Limits>) {
        for KeyOwner { name, tier } in limits.into_iter().flat_map(|limits| keys.beyond(limits)) {
            let path = self.path.display();
            warn!(%path, client = &**name, tier = tier.as_deref(), "the limits name no such tier: the key has the limit of those without one");
        }
    }
}

fn say(path: &Path, keys: &Keys) {
    let clients: HashSet<&str> = keys.lines.iter().map(|line| &*line.owner.name).collect();
    info!(path = %path.display(), keys = keys.lines.len(), clients = clients.len(), "API keys");
    for (line, why) in &keys.problems {
        warn!(path = %path.display(), line, why, "a line is no API key and lets nobody in");
    }
}

/// The text of a file, or of the files of a folder in the order of their names, without those that Kubernetes keeps there
/// for itself.
fn read(path: &Path) -> io::Result<Keys> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        files.retain(|file| {
            file.is_file() && !file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
        });
        files.sort();
    }
    let mut text = String::new();
    for file in files {
        let room = TEXT_MAX.saturating_sub(text.len() as u64);
        std::fs::File::open(file)?.take(room + 1).read_to_string(&mut text)?;
        text.push('\n');
    }
    if text.len() as u64 > TEXT_MAX {
        return Err(io::Error::other(format!("the keys have more than {TEXT_MAX} bytes")));
    }
    Ok(Keys::parse(&text))
}

#[cfg(test)]
mod tests {
    use hebb_api::{RateLimitSpec, TierSpec};

    use super::*;

    #[test]
    fn a_new_key_is_known_by_its_line_and_no_other_is() {
        let (key, line) = KeyLine::new("alice@example.com", Some("batch")).unwrap();
        let (other, _) = KeyLine::new("alice@example.com", None).unwrap();
        assert!(key.starts_with(PREFIX) && key.len() == PREFIX.len() + 64 && key != other);
        let keys = Keys::parse(&format!("# clients\n\n  {line}\r\n"));
        assert_eq!(keys.problems, []);
        let owner = keys.owner(&key).unwrap();
        assert_eq!((&*owner.name, owner.tier.as_deref()), ("alice@example.com", Some("batch")));
        for wrong in [&other, "", &key[1..], &format!("{key} "), &hex(&line.digest)] {
            assert_eq!(keys.owner(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_tier_that_no_limit_has_is_told() {
        let lines = [("a", None), ("b", Some("batch")), ("c", Some("bacth"))];
        let lines = lines.map(|(name, tier)| KeyLine::new(name, tier).unwrap().1.to_string());
        let keys = Keys::parse(&lines.join("\n"));
        let tier = TierSpec { name: "batch".to_owned(), requests_per_second: 500, burst: None, max_priority: None };
        let limits = Limits::from(&RateLimitSpec { tiers: vec![tier], ..RateLimitSpec::default() });
        assert_eq!(keys.beyond(&limits).map(|owner| &*owner.name).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_bad_line_lets_nobody_in_keeps_nobody_out_and_is_not_repeated() {
        let (key, line) = KeyLine::new("good", None).unwrap();
        let digest = line.to_string().split(' ').next_back().unwrap().to_owned();
        let bad = [
            "secret".to_owned(),
            format!("name {digest}"),
            format!("name - {digest}0"),
            format!("name - {}", &digest[..digest.len() - 2]),
            format!("name - {}", digest.replace(SCHEME, "md5:")),
            format!("näme - {digest}"),
            format!("- - {digest}"),
            format!("{} - {digest}", "n".repeat(64)),
        ];
        let keys = Keys::parse(&format!("{}\n{line}", bad.join("\n")));
        assert_eq!(
            keys.problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            (1..=bad.len()).collect::<Vec<_>>()
        );
        assert!(keys.problems.iter().all(|(_, why)| !why.contains("secret")), "{:?}", keys.problems);
        assert!(keys.owner(&key).is_some());
    }

    #[test]
    fn a_folder_is_read_as_kubernetes_mounts_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let (first, line) = KeyLine::new("first", None).unwrap();
        let versions = folder.path().join("..2026");
        std::fs::create_dir(&versions).unwrap();
        std::fs::write(versions.join("clients"), line.to_string()).unwrap();
        std::os::unix::fs::symlink("..2026", folder.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/clients", folder.path().join("clients")).unwrap();
        let keys = read(folder.path()).unwrap();
        assert_eq!((keys.lines.len(), keys.owner(&first).is_some()), (1, true));
        std::fs::write(folder.path().join("huge"), " ".repeat(1 << 21)).unwrap();
        assert!(read(folder.path()).is_err());
    }
}
