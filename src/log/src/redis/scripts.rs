//! The Lua scripts: each is one step that happens wholly or not at all, also in the append-only file.

use std::time::Duration;

use redis::{Cmd, Script, ToRedisArgs};

use super::primary::Request;
use super::shards::slot;

/// The first bytes of the scripts without which a Redis that has reached its `maxmemory` would stay full for ever: leases,
/// beats and leadership go on, and a checkpoint trims the log. Most put a small value in the place of another. What makes
/// Redis grow, entries first of all, has no such leave and is refused. Redis knows flags since 7.0.
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";

/// The history of the data that this primary has, as a word: Redis makes a new one up whenever a replica is promoted or a
/// primary is started, which is whenever something may have been lost. Costs 10 µs.
const LINEAGE: &str = r"
local function lineage()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
end
";

/// Refused where Redis is full. The partition's keys: log, progress, which counts what is kept for a fallback too.
/// Answers the ids, or the number of waiting entries where there is no room.
const APPEND: &str = r"
local waiting = math.max(0, redis.call('XLEN', KEYS[1]) - tonumber(redis.call('GET', KEYS[2]) or '0'))
local count = (#ARGV - 1) / 2
if waiting + count > tonumber(ARGV[1]) then return waiting end
local ids = {}
for i = 1, count do
  ids[i] = redis.call('XADD', KEYS[1], '*', 'd', ARGV[2 * i], 'r', ARGV[2 * i + 1])
end
return ids";

/// Keys: owner, lease, progress, checkpoint. Arguments: owner, previous token, new token, lease in ms, whether the claim
/// is to end with this history of the data.
///
/// After a failover, an owner of whom that was asked can't resume: its state may contain entries that this primary has
/// never had. It gets a new claim at once where its own lease is the one that stands. A claim that was lost altogether
/// leaves the one before it: that owner is fenced off in the same way, and its lease has to expire before the next comes.
///
/// The epoch is at least the time in ms: the newest epoch may have been lost with the last second of the append-only
/// file, and must not be given out twice. A new owner restores the checkpoint and replays the tail, all of which waits, but
/// not what is kept for a fallback.
const CLAIM: &str = r"
local owner = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'owner', 'lineage')
local lineage = ARGV[5] == '1' and lineage() or ''
local lease = redis.call('GET', KEYS[2])
if lease and lease ~= ARGV[2] then
  return {'held', owner[3] or '', math.max(0, redis.call('PTTL', KEYS[2]))}
end
if owner[2] and owner[2] == ARGV[2] and (owner[4] or '') == lineage then
  redis.call('SET', KEYS[2], owner[2], 'PX', ARGV[4])
  redis.call('HSET', KEYS[1], 'owner', ARGV[1])
  return {'resumed', owner[2], owner[1]}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local written = redis.call('HGET', KEYS[4], 'epoch') or '0'
local epoch = string.format('%.0f', math.max(now, tonumber(owner[1] or '0') + 1, tonumber(written) + 1))
redis.call('HSET', KEYS[1], 'epoch', epoch, 'token', ARGV[3], 'owner', ARGV[1], 'lineage', lineage)
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
local kept = redis.call('HGET', KEYS[4], 'entries')
if kept then redis.call('SET', KEYS[3], kept) else redis.call('DEL', KEYS[3]) end
return {'new', ARGV[3], epoch}";

/// What the scripts of an owner begin with. Keys: owner first. Arguments: token and epoch first.
///
/// Without a look at the history, an owner whose state is ahead of the new primary's log would never read what was
/// appended there at places behind its own, and its next checkpoint would trim it.
const FENCE: &str = r"
local owner = redis.call('HMGET', KEYS[1], 'token', 'epoch', 'lineage')
if owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2] then return 0 end
if owner[3] and owner[3] ~= '' and owner[3] ~= lineage() then return 0 end
";

/// Keys: owner, lease. Arguments: token, epoch, lease in ms. The lease of an owner whom nobody superseded is its own.
const RENEW: &str = r"
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1";

/// Keys: owner, lease. Arguments: token, epoch. Not fenced: the lease tells whose it is, and one who was fenced off after
/// a failover gives its lease up by this, so that nobody has to wait for its end.
const RELEASE: &str = r"
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1";

/// Keys: owner, checkpoint, log, progress, fallback. Arguments: token, epoch, position, its parts, what follows it, state;
/// then of what is to be kept: position, what follows it, since, entries, bytes.
///
/// Where Redis has lost the newest entries, the position may be past its last id, and after a step back of the clock new
/// ids would be before it and never read. Adding an entry of that id moves the last id, and fails everywhere else. What was
/// lost is missing behind a fallback, so none is kept then; nor where memory gets scarce, as a full Redis takes no entries.
/// A full Redis takes a checkpoint, as nothing else trims the log, and trims before it stores. But a large state where
/// there was none trims nothing worth it: that is somebody who restores more than this Redis holds.
const CHECKPOINT: &str = r"
local function below(share)
  local memory = redis.call('INFO', 'memory')
  local max = tonumber(string.match(memory, '\nmaxmemory:(%d+)') or '0')
  return max == 0 or tonumber(string.match(memory, '\nused_memory:(%d+)') or '0') < max * share
end
local stored = redis.call('HGET', KEYS[2], 'position')
if not stored and #ARGV[7] > 1048576 and not below(1) then
  return redis.error_reply('OOM there is no room for a further state')
end
if stored then
  local ms, seq = string.match(stored, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if tonumber(ARGV[4]) < ms or (tonumber(ARGV[4]) == ms and tonumber(ARGV[5]) < seq) then return 1 end
end
local stays = ARGV[8] and redis.call('HGET', KEYS[5], 'position') == ARGV[8]
local kept = ARGV[8] and (stays or stored == ARGV[8]) and below(3 / 4)
local lost = type(redis.pcall('XADD', KEYS[3], ARGV[3], 'd', '')) == 'string'
if kept and not lost then
  redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[9])
  redis.call('SET', KEYS[4], ARGV[11])
  if not stays then redis.call('RENAME', KEYS[2], KEYS[5]) end
  redis.call('HSET', KEYS[2], 'kept', ARGV[8], 'since', ARGV[10], 'entries', ARGV[11], 'bytes', ARGV[12])
else
  redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[6])
  redis.call('DEL', KEYS[4])
  redis.call('UNLINK', KEYS[5])
  redis.call('HDEL', KEYS[2], 'kept', 'since', 'entries', 'bytes')
end
redis.call('HSET', KEYS[2], 'position', ARGV[3], 'epoch', ARGV[2], 'state', ARGV[7])
return 1";

/// Keys: owner, progress, checkpoint. Arguments: token, epoch, applied.
const PROGRESS: &str = r"
redis.call('SET', KEYS[2], string.format('%.0f', ARGV[3] + (redis.call('HGET', KEYS[3], 'entries') or 0)))
return 1";

/// Keys: owner, checkpoint, log, progress, lease.
const STATUS: &str = r"
local owner = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
local held = redis.call('EXISTS', KEYS[5])
local length = redis.call('XLEN', KEYS[3])
return {
  math.max(0, length - tonumber(redis.call('GET', KEYS[4]) or '0')),
  math.max(0, length - tonumber(redis.call('HGET', KEYS[2], 'entries') or '0')),
  held == 1 and owner[1] or '', owner[2] or '0', redis.call('HGET', KEYS[2], 'position') or '',
  redis.call('HSTRLEN', KEYS[2], 'state')}";

/// Keys: domains. Arguments: name, domain. A full Redis refuses a new one, but tells of one that stands.
const DECLARE: &str = r"
local stands = redis.call('HGET', KEYS[1], ARGV[1])
if stands then return stands end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]";

/// Keys: domains. Arguments: name, what stands, what is to stand. Numbers of 64 bits don't survive Lua, so the text is
/// made by the caller and put in place where nobody else was faster.
const CONFIGURE: &str = r"
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1";

/// Keys: members, beats. Arguments: id, report, time to live in ms.
const BEAT: &str = r"
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[1])
return 1";

/// Keys: members, beats. Arguments: id.
const LEAVE: &str = r"
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1";

/// Keys: members, beats, history. Arguments: grace in ms. The time is that of the one Redis, so the clocks of the nodes
/// don't matter. Nobody could beat while there was no primary: after that everybody has some time to be heard again,
/// before the partitions of all are given to whoever is the first.
const MEMBERS: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local history = lineage()
if redis.call('GET', KEYS[3]) ~= history then
  redis.call('SET', KEYS[3], history)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now + ARGV[1])) do
    redis.call('ZADD', KEYS[2], now + ARGV[1], id)
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
return redis.call('HGETALL', KEYS[1])";

/// Keys: leader, term. Arguments: candidate, address, lease in ms. The term is at least the time, as the epoch is.
const CAMPAIGN: &str = r"
local leader = redis.call('HMGET', KEYS[1], 'id', 'address', 'term')
if leader[1] and leader[1] ~= ARGV[1] then return leader end
local term = leader[3]
if not term then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  term = string.format('%.0f', math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0') + 1))
  redis.call('SET', KEYS[2], term)
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'address', ARGV[2], 'term', term)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ARGV[1], ARGV[2], term}";

/// Keys: leader. Arguments: candidate.
const RESIGN: &str = r"
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1";

/// Keys: term, what is written. Arguments: term, assignment or note. A term begins with its first leader and ends with the next term.
const ASSIGN: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1";

/// Keys: term, beginnings, samples. Arguments: term, slot, beginning, batch. Refused where Redis is full.
const RECORD: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1";

/// Keys: term, beginnings, samples. Arguments: term, before. Answers how many slots it emptied, or -1 to a leader of the past.
const PRUNE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local slots = redis.call('HGETALL', KEYS[2])
local removed = 0
for i = 1, #slots, 2 do
  if tonumber(slots[i + 1]) < tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[2], slots[i])
    redis.call('HDEL', KEYS[3], slots[i])
    removed = removed + 1
  end
end
return removed";

/// All scripts with their digests.
pub(super) struct Scripts {
    pub(super) append: Script,
    pub(super) claim: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
    pub(super) checkpoint: Script,
    pub(super) progress: Script,
    pub(super) status: Script,
    pub(super) declare: Script,
    pub(super) configure: Script,
    pub(super) beat: Script,
    pub(super) leave: Script,
    pub(super) members: Script,
    pub(super) campaign: Script,
    pub(super) resign: Script,
    pub(super) assign: Script,
    pub(super) record: Script,
    pub(super) prune: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let vital = |body: &str| Script::new(&format!("{ALLOW_OOM}{body}"));
        let fenced = |body: &str| vital(&format!("{LINEAGE}{FENCE}{body}"));
        Self {
            append: Script::new(APPEND),
            claim: vital(&format!("{LINEAGE}{CLAIM}")),
            renew: fenced(RENEW),
            release: Script::new(RELEASE),
            checkpoint: fenced(CHECKPOINT),
            progress: fenced(PROGRESS),
            status: Script::new(STATUS),
            declare: Script::new(DECLARE),
            configure: vital(CONFIGURE),
            beat: vital(BEAT),
            leave: Script::new(LEAVE),
            members: vital(&format!("{LINEAGE}{MEMBERS}")),
            campaign: vital(CAMPAIGN),
            resign: Script::new(RESIGN),
            assign: vital(ASSIGN),
            record: Script::new(RECORD),
            prune: Script::new(PRUNE),
        }
    }
}

/// A call of a script, written straight into the buffer that is sent: entries are copied once. Or of a command alone.
pub(super) struct Call<'a> {
    /// The slot of all its keys.
    pub(super) slot: u16,
    script: Option<&'a Script>,
    cmd: Cmd,
}

impl<'a> Call<'a> {
    pub(super) fn new(script: &'a Script, keys: &[String]) -> Self {
        Self::with_capacity(script, keys, 8, 256)
    }

    /// A call for which so many arguments of so many bytes in all are to come.
    pub(super) fn with_capacity(script: &'a Script, keys: &[String], args: usize, bytes: usize) -> Self {
        let key_bytes: usize = keys.iter().map(String::len).sum();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args, 64 + key_bytes + bytes);
        cmd.arg("EVALSHA").arg(script.get_hash()).arg(keys.len()).arg(keys);
        Self { slot: keys.first().map_or(0, |key| slot(key)), script: Some(script), cmd }
    }

    /// A command about a key.
    pub(super) fn plain(key: &str, cmd: Cmd) -> Self {
        Self { slot: slot(key), script: None, cmd }
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    pub(super) fn request(&self, asking: bool, deadline: Duration) -> Request<'_> {
        Request { cmd: &self.cmd, script: self.script, asking, deadline }
    }
}
