//! The certificate that a Redis shows which Hebb runs: what is wrong with one, and the one that Hebb makes where nobody else
//! does. No clock and no client; only new keys are random.

use std::time::Duration;

use hebb_api::names::{self, Role};
use hebb_api::{IssuerRef, LearningCluster, RedisMode};
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// How long a certificate of Hebb's is valid.
const LIFE_DAYS: i64 = 365;
/// How long before its end it is made anew: a roll of Redis that somebody holds back has time.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long the authority of Hebb's certificates is valid: longer than a cluster, for a new one isn't trusted by pods that run.
const AUTHORITY_LIFE_DAYS: i64 = 100 * 365;
/// A certificate is valid from the day before: clocks differ.
const BACKDATED_DAYS: i64 = 1;

/// The keys of a Secret with a certificate.
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
pub const AUTHORITY: &str = "ca.crt";
/// Of Hebb's own only; no pod sees it.
pub const AUTHORITY_KEY: &str = "ca.key";

/// What such a Secret holds, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pems {
    pub certificate: String,
    pub key: String,
    pub authority: String,
    pub authority_key: Option<String>,
}

/// Where a certificate comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Hebb makes it.
    Hebb,
    /// Somebody made the Secret.
    Somebody,
    /// cert-manager makes it.
    Issuer(IssuerRef),
}

/// The certificate of a cluster's Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Name of the Secret.
    pub secret: String,
    pub source: Source,
    /// What it holds, or why that is of no use.
    pub pems: Result<Pems, Fault>,
}

/// Why a certificate is of no use, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: &'static str,
    pub message: String,
}

impl Fault {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// cert-manager can't be asked.
    pub fn is_of_manager(&self) -> bool {
        matches!(self.reason, NO_CERT_MANAGER | NOT_ALLOWED)
    }

    /// Nobody has to do anything yet.
    pub fn is_pending(&self) -> bool {
        self.reason == PENDING
    }
}

/// The API server doesn't know cert-manager's kinds.
pub const NO_CERT_MANAGER: &str = "NoCertManager";
/// The operator has no rights on them.
pub const NOT_ALLOWED: &str = "NotAllowed";
/// cert-manager hasn't made it yet.
pub const PENDING: &str = "Pending";

/// What a certificate must be good for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Full name of the Service of Redis.
    pub host: String,
    /// Names that must be on it.
    names: Vec<String>,
    /// The servers show it to each other.
    mutual: bool,
}

impl Wanted {
    /// What the Redis of a cluster needs in a Kubernetes cluster of this DNS domain.
    pub fn new(cluster: &LearningCluster, domain: &str) -> Self {
        let metadata = &cluster.metadata;
        let redis = Role::Redis.object_name(metadata.name.as_deref().unwrap_or_default());
        let host = format!("{redis}.{}.svc.{domain}", metadata.namespace.as_deref().unwrap_or_default());
        let mode = cluster.spec.redis.mode;
        let names = match mode {
            RedisMode::Standalone | RedisMode::External => vec![host.clone()],
            RedisMode::Sentinel | RedisMode::Cluster => vec![format!("{redis}-0.{host}")],
        };
        Self { host, names, mutual: mode == RedisMode::Cluster }
    }

    /// The names that a certificate is made for.
    pub fn all_names(&self) -> Vec<String> {
        vec![self.host.clone(), format!("*.{}", self.host)]
    }
}

/// The name and the source of a cluster's certificate, where there is to be one.
pub fn source(cluster: &LearningCluster) -> Option<(String, Source)> {
    let tls = cluster.spec.redis.tls.as_ref()?;
    let made = || names::redis_tls_name(cluster.metadata.name.as_deref().unwrap_or_default());
    Some(match (&tls.secret_ref, &tls.issuer_ref) {
        (Some(secret), _) => (secret.name.clone(), Source::Somebody),
        (None, Some(issuer)) => (made(), Source::Issuer(issuer.clone())),
        (None, None) => (made(), Source::Hebb),
    })
}

/// Finds what is wrong with a certificate at a time.
///
/// # Errors
/// [`Fault`].
pub fn check(pems: &Pems, wanted: &Wanted, at: Timestamp) -> Result<(), Fault> {
    let malformed = |key: &str| Fault::new("Malformed", format!("{key} holds no PEM that can be read: write it anew"));
    let certificates = |key: &str, text: &str| {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        read.ok().filter(|read| !read.is_empty()).ok_or_else(|| malformed(key))
    };
    let chain = certificates(CERTIFICATE, &pems.certificate)?;
    let roots = certificates(AUTHORITY, &pems.authority)?;
    let anchors: Result<Vec<_>, _> = roots.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|_| malformed(AUTHORITY))?;
    let key = PrivateKeyDer::from_pem_slice(pems.key.as_bytes()).map_err(|_| malformed(KEY))?;
    let key = ring::sign::any_supported_type(&key).map_err(|_| malformed(KEY))?;
    if CertifiedKey::new(chain.clone(), key).keys_match().is_err() {
        return Err(Fault::new("KeyMismatch", "tls.key isn't the key of tls.crt: write both of one certificate"));
    }
    let (first, between) = chain.split_first().ok_or_else(|| malformed(CERTIFICATE))?;
    let leaf = EndEntityCert::try_from(first).map_err(|_| malformed(CERTIFICATE))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
    let usages = [Some(KeyUsage::server_auth()), wanted.mutual.then(KeyUsage::client_auth)];
    for usage in usages.into_iter().flatten() {
        let verified = leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, between, now, usage, None, None);
        verified.map(drop).map_err(|error| distrust(&error))?;
    }
    for name in &wanted.names {
        let valid = ServerName::try_from(name.as_str()).map(|name| leaf.verify_is_valid_for_subject_name(&name));
        if !matches!(valid, Ok(Ok(()))) {
            let names = wanted.all_names().join(" and ");
            let message = format!("the certificate isn't for {name}: make one with the DNS names {names}");
            return Err(Fault::new("NameMismatch", message));
        }
    }
    Ok(())
}

fn distrust(error: &webpki::Error) -> Fault {
    match error {
        webpki::Error::CertExpired { .. } => Fault::new("Expired", "the certificate has expired: write a new one"),
        webpki::Error::CertNotValidYet { .. } => {
            Fault::new("NotYetValid", "the certificate isn't valid yet: write one that is, or set the clocks right")
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            Fault::new("UsageMismatch", "the certificate must be for servers and, with mode Cluster, for clients too")
        }
        other => Fault::new(
            "Untrusted",
            format!(
                "ca.crt doesn't vouch for tls.crt ({other}): write who issued it, and those in between behind tls.crt"
            ),
        ),
    }
}

/// The certificate that Hebb makes: the stored one as long as it lasts, then one that the same authority vouches for, so
/// that whoever trusts that needs no restart.
///
/// # Errors
/// [`Fault`] where none can be made.
pub fn own(stored: Option<Pems>, wanted: &Wanted, now: Timestamp) -> Result<Pems, Fault> {
    let lasts = |pems: &Pems| check(pems, wanted, now).and_then(|()| check(pems, wanted, now + RENEW_BEFORE));
    if let Some(stored) = stored {
        if stored.authority_key.is_some() && lasts(&stored).is_ok() {
            return Ok(stored);
        }
        if let Ok(renewed) = make(Some(&stored), wanted, now)
            && lasts(&renewed).is_ok()
        {
            return Ok(renewed);
        }
    }
    let made = make(None, wanted, now).map_err(|error| Fault::new("NotMade", error.to_string()))?;
    lasts(&made).map(|()| made)
}

/// Makes a certificate, and an authority where there is none to be kept.
fn make(kept: Option<&Pems>, wanted: &Wanted, now: Timestamp) -> Result<Pems, rcgen::Error> {
    let authority = authority(now);
    let (certificate_of_authority, authority_key) = match kept {
        Some(kept) => {
            let key = KeyPair::from_pem(kept.authority_key.as_deref().unwrap_or_default())?;
            (kept.authority.clone(), key)
        }
        None => {
            let key = KeyPair::generate()?;
            (authority.self_signed(&key)?.pem(), key)
        }
    };
    let authority_pem = authority_key.serialize_pem();
    let mut names = wanted.all_names();
    names.push("localhost".to_owned());
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, "redis");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let (begin, end) = (date(now, -BACKDATED_DAYS), date(now, LIFE_DAYS));
    parameters.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
    parameters.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok(Pems {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        authority: certificate_of_authority,
        authority_key: Some(authority_pem),
    })
}

/// What an authority is but for its key; the same always, so that it can issue again.
fn authority(now: Timestamp) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "hebb redis authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (begin, end) = (date(now, -BACKDATED_DAYS), date(now, AUTHORITY_LIFE_DAYS));
    parameters.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
    parameters.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
    parameters
}

/// Year, month and day so many days from a time.
fn date(now: Timestamp, days: i64) -> (i32, u8, u8) {
    let then = now.saturating_add(SignedDuration::from_hours(24 * days)).unwrap_or(now);
    let date = then.to_zoned(TimeZone::UTC).date();
    // A month and a day of a date are never negative.
    (date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(NOW + days * 24 * 3_600).unwrap()
    }

    fn wanted(mode: &str) -> Wanted {
        let cluster: LearningCluster = serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
            "metadata": {"name": "demo", "namespace": "ns"}, "spec": {"redis": {"mode": mode, "tls": {}}},
        }))
        .unwrap();
        Wanted::new(&cluster, "cluster.local")
    }

    fn reason(pems: &Pems, wanted: &Wanted, at: Timestamp) -> &'static str {
        check(pems, wanted, at).map_or_else(|fault| fault.reason, |()| "Valid")
    }

    #[test]
    fn a_certificate_of_hebbs_is_good_for_every_mode_and_kept_until_ninety_days_before_its_end() {
        let wanted_by_all = ["Standalone", "Sentinel", "Cluster"].map(wanted);
        let made = own(None, &wanted_by_all[0], at(0)).ok().unwrap();
        for wanted in &wanted_by_all {
            assert_eq!(reason(&made, wanted, at(0)), "Valid", "{wanted:?}");
        }
        let again = |days| own(Some(made.clone()), &wanted_by_all[2], at(days)).ok().unwrap();
        assert!(again(0) == made, "a fresh certificate isn't made again");
        assert!(again(270) == made);
        let renewed = again(280);
        assert!(renewed.certificate != made.certificate && renewed.key != made.key);
        assert!(renewed.authority == made.authority && renewed.authority_key == made.authority_key);
        assert!(own(Some(renewed.clone()), &wanted_by_all[0], at(280)).ok().unwrap() == renewed);
    }

    #[test]
    fn a_secret_that_somebody_spoilt_is_made_anew() {
        let wanted = wanted("Standalone");
        let made = own(None, &wanted, at(0)).ok().unwrap();
        let other = own(None, &wanted, at(0)).ok().unwrap();
        for spoilt in [
            Pems { certificate: "no".to_owned(), ..made.clone() },
            Pems { key: other.key.clone(), ..made.clone() },
            Pems { authority: other.authority.clone(), ..made.clone() },
            Pems { authority_key: None, ..made.clone() },
        ] {
            let anew = own(Some(spoilt.clone()), &wanted, at(0)).ok().unwrap();
            assert!(anew != spoilt && reason(&anew, &wanted, at(0)) == "Valid" && anew.authority_key.is_some());
        }
    }

    #[test]
    fn what_is_wrong_with_somebody_elses_certificate_is_told_apart() {
        let sentinels = wanted("Sentinel");
        let made = own(None, &sentinels, at(0)).ok().unwrap();
        let other = own(None, &sentinels, at(0)).ok().unwrap();
        let with = |pems: Pems| reason(&pems, &sentinels, at(0));
        assert_eq!(with(Pems { certificate: String::new(), ..made.clone() }), "Malformed");
        assert_eq!(with(Pems { authority: "ca".to_owned(), ..made.clone() }), "Malformed");
        assert_eq!(with(Pems { key: "-----BEGIN".to_owned(), ..made.clone() }), "Malformed");
        assert_eq!(with(Pems { key: other.key.clone(), ..made.clone() }), "KeyMismatch");
        assert_eq!(with(Pems { authority: other.authority.clone(), ..made.clone() }), "Untrusted");
        assert_eq!(reason(&made, &sentinels, at(366)), "Expired");
        assert_eq!(reason(&made, &sentinels, at(-3)), "NotYetValid");
        let elsewhere = Wanted { host: "x".to_owned(), names: vec!["r-0.x".to_owned()], mutual: false };
        assert_eq!(reason(&made, &elsewhere, at(0)), "NameMismatch");
        // Two authorities may vouch while one follows the other.
        let both = format!("{}{}", other.authority, made.authority);
        assert_eq!(with(Pems { authority: both, ..made.clone() }), "Valid");
    }
}
