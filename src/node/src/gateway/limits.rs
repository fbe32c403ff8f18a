//! How much each client may ask for: token buckets. Pure: time is an argument.
//!
//! A bucket holds at most `burst` tokens and gets `per_second` of them. A batch is let in for one
//! of them and charged the rest, which may leave a debt: it passes once and is paid for afterwards.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_api::RateLimitSpec;

use super::priority::Priority;

/// Clients with a bucket of their own: some megabytes. More share one.
const CLIENTS_MAX: usize = 65_536;
/// How often the buckets that are full again may be looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is said that a client asks for too much.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The owner of a key.
    Key(Arc<str>),
    /// Somebody without one. Of IPv6 the network: one machine has 2⁶⁴ addresses.
    Address(IpAddr),
}

impl Client {
    /// Who comes from this address.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(six) => {
                let network = six.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            four => four,
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Key(name) => f.write_str(name),
            Client::Address(address) => address.fmt(f),
        }
    }
}

/// A rate, what may come at once, and how much it may matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    per_second: f64,
    burst: f64,
    priority_max: Priority,
}

impl Limit {
    fn new(per_second: i32, burst: Option<i32>, priority_max: Option<hebb_api::Priority>) -> Self {
        let per_second = f64::from(per_second.max(1));
        let burst = burst.map_or(2.0 * per_second, |burst| f64::from(burst.max(1)));
        Self { per_second, burst, priority_max: priority_max.map_or(Priority::High, Priority::from) }
    }

    /// The highest priority that requests under it have.
    pub fn priority_max(&self) -> Priority {
        self.priority_max
    }
}

/// The limits of everybody.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    standard: Limit,
    tiers: BTreeMap<String, Limit>,
}

impl From<&RateLimitSpec> for Limits {
    fn from(spec: &RateLimitSpec) -> Self {
        let tiers = spec
            .tiers
            .iter()
            .map(|tier| (tier.name.clone(), Limit::new(tier.requests_per_second, tier.burst, tier.max_priority)));
        Self { standard: Limit::new(spec.requests_per_second, spec.burst, None), tiers: tiers.collect() }
    }
}

impl Limits {
    /// Whether there is a tier of this name.
    pub fn has(&self, tier: &str) -> bool {
        self.tiers.contains_key(tier)
    }

    /// The limit of a tier. One that isn't known is no tier.
    pub fn of(&self, tier: Option<&str>) -> Limit {
        tier.and_then(|tier| self.tiers.get(tier)).copied().unwrap_or(self.standard)
    }
}

/// Whether a client may go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It may.
    Granted,
    /// It may after a while. `say` is set when it is time to say so, to how often it was refused since it was said last.
    Refused { wait: Duration, say: Option<u64> },
}

struct Bucket {
    tokens: f64,
    counted_at: Instant,
    limit: Limit,
    refused: u64,
    said_at: Option<Instant>,
}

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self { tokens: limit.burst, counted_at: now, limit, refused: 0, said_at: None }
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        (self.tokens + passed * self.limit.per_second).min(self.limit.burst)
    }

    fn take(&mut self, limit: Limit, now: Instant) -> Verdict {
        self.tokens = self.tokens_at(now).min(limit.burst);
        (self.counted_at, self.limit) = (now, limit);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Verdict::Granted;
        }
        self.refused += 1;
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / limit.per_second);
        let is_time = self.said_at.is_none_or(|said_at| now.saturating_duration_since(said_at) >= SAY_EVERY);
        let say = is_time.then(|| {
            self.said_at = Some(now);
            std::mem::take(&mut self.refused)
        });
        Verdict::Refused { wait, say }
    }
}

/// The buckets of all clients.
#[derive(Default)]
pub struct Buckets {
    own: HashMap<Client, Bucket>,
    /// Of those who came when there were too many.
    shared: Option<Bucket>,
    swept_at: Option<Instant>,
}

impl Buckets {
    /// Takes a token of a client, if it has one.
    pub fn take(&mut self, client: &Client, limit: Limit, now: Instant) -> Verdict {
        if let Some(bucket) = self.own.get_mut(client) {
            return bucket.take(limit, now);
        }
        if self.own.len() >= CLIENTS_MAX {
            self.sweep(now);
        }
        if self.own.len() >= CLIENTS_MAX {
            return self.shared.get_or_insert_with(|| Bucket::full(limit, now)).take(limit, now);
        }
        self.own.entry(client.clone()).or_insert_with(|| Bucket::full(limit, now)).take(limit, now)
    }

    /// Takes tokens whether a client has them or not.
    pub fn charge(&mut self, client: &Client, limit: Limit, cost: f64, now: Instant) {
        if let Some(bucket) = self.own.get_mut(client).or(self.shared.as_mut()) {
            bucket.tokens = bucket.tokens_at(now).min(limit.burst) - cost;
            bucket.counted_at = now;
        }
    }

    /// How many have a bucket.
    pub fn len(&self) -> usize {
        self.own.len()
    }

    /// Forgets the buckets that are full: a new one is, too.
    fn sweep(&mut self, now: Instant) {
        if self.swept_at.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_EVERY) {
            return;
        }
        self.swept_at = Some(now);
        self.own.retain(|_, bucket| bucket.tokens_at(now) < bucket.limit.burst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FIVE: Limit = Limit { per_second: 5.0, burst: 10.0, priority_max: Priority::High };

    fn client(number: u32) -> Client {
        Client::at(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn granted(buckets: &mut Buckets, client: &Client, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| buckets.take(client, FIVE, now) == Verdict::Granted).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        assert_eq!(granted(&mut buckets, &client(1), start, 50), 10);
        assert_eq!(granted(&mut buckets, &client(2), start, 50), 10, "another client has its own");
        for second in 1..20 {
            assert_eq!(granted(&mut buckets, &client(1), start + Duration::from_secs(second), 50), 5);
        }
        let idle = start + Duration::from_secs(3_600);
        assert_eq!(granted(&mut buckets, &client(1), idle, 50), 10, "no more is saved up than the burst");
    }

    #[test]
    fn who_waits_as_long_as_told_is_granted_and_a_batch_is_paid_for_afterwards() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        assert_eq!(buckets.take(&client(1), FIVE, start), Verdict::Granted);
        buckets.charge(&client(1), FIVE, 59.0, start);
        let Verdict::Refused { wait, say } = buckets.take(&client(1), FIVE, start) else { panic!("in debt") };
        assert_eq!((wait, say), (Duration::from_secs_f64(51.0 / 5.0), Some(1)));
        let early = start + wait - Duration::from_millis(1);
        assert!(matches!(buckets.take(&client(1), FIVE, early), Verdict::Refused { .. }));
        let late = start + wait + Duration::from_millis(1);
        assert_eq!(buckets.take(&client(1), FIVE, late), Verdict::Granted);
    }

    #[test]
    fn it_is_said_once_a_second_how_often_somebody_was_refused() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        granted(&mut buckets, &client(1), start, 10);
        let mut said = Vec::new();
        for tenth in 0..12 {
            // Too short a pause for a token.
            let now = start + Duration::from_millis(100 * tenth);
            while let Verdict::Refused { say, .. } = buckets.take(&client(1), FIVE, now) {
                said.extend(say);
                if said.len() > 1 || tenth < 11 {
                    break;
                }
            }
        }
        assert_eq!(said[0], 1);
        assert!(said.len() == 2 && said[1] > 3, "{said:?}");
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_the_bound() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let crowd = CLIENTS_MAX as u32 + 1_000;
        let passed = (0..crowd).filter(|number| buckets.take(&client(*number), FIVE, start) == Verdict::Granted);
        assert_eq!(passed.count(), CLIENTS_MAX + 10, "those without room share a bucket");
        assert_eq!(buckets.len(), CLIENTS_MAX);
        let later = start + Duration::from_secs(60);
        assert_eq!(granted(&mut buckets, &client(crowd), later, 50), 10);
        assert_eq!(buckets.len(), 1, "who has been quiet is forgotten");
    }

    #[test]
    fn a_machine_with_many_addresses_is_one_client() {
        let at = |address: &str| Client::at(address.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_eq!(at("2001:db8::1").to_string(), "2001:db8::");
    }
}
