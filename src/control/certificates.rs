//! The files of TLS: the certificate that clients see, and the authorities that vouch for resolvers. They are read by
//! `sampan check`, at start, and by every reload; the daemon watches the first.

use std::fs;
use std::path::Path;

use super::plan::{Checked, DnsPlan, TlsPlan};
use super::problem::{Fault, Problem, Problems};
use crate::io::dns_net::{Certificate, Trust, TrustError};

/// What the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// What clients see.
    pub own: Option<Certificate>,
    /// Who vouches for resolvers that are asked over TLS or HTTPS.
    pub trust: Trust,
}

/// What is wrong with the files of a plan.
pub fn check(checked: &Checked) -> Vec<Problem> {
    let mut problems = Problems::with_places(checked.places.clone());
    if let Some(plan) = &checked.plan.dns64 {
        read(plan, &mut problems);
    }
    problems.into_sorted().0
}

/// Reads all files that the plan needs. What cannot be used is missing, and among the problems.
pub fn read(plan: &DnsPlan, problems: &mut Problems) -> Certificates {
    let own = plan.tls.as_ref().map(read_own);
    let own = own.and_then(|read| read.map_err(|(key, fault)| problems.error(key, fault)).ok());
    let trust = match &plan.upstream_ca {
        Some(file) => trust(file).map_err(|fault| problems.error("dns64.upstream-ca", fault)),
        None if plan.asks_over_tls() => Trust::system().map_err(|error| {
            let reason = error.to_string();
            problems.warning("dns64.upstream", Fault::NoAuthorities { reason });
        }),
        None => Ok(Trust::default()),
    };
    Certificates { own, trust: trust.unwrap_or_default() }
}

/// Reads the certificate and its key; an error comes with the path of the configuration key that it is about.
pub fn read_own(tls: &TlsPlan) -> Result<Certificate, (&'static str, Fault)> {
    let chain = pem(&tls.certificate).map_err(|fault| ("dns64.tls.certificate", fault))?;
    let key = pem(&tls.key).map_err(|fault| ("dns64.tls.key", fault))?;
    Certificate::from_pem(&chain, &key)
        .map_err(|error| ("dns64.tls.certificate", Fault::CertificateUnusable { reason: error.to_string() }))
}

fn trust(file: &Path) -> Result<Trust, Fault> {
    Trust::from_pem(&pem(file)?)
        .map_err(|TrustError(reason)| Fault::AuthoritiesUnusable { file: file.display().to_string(), reason })
}

fn pem(file: &Path) -> Result<Vec<u8>, Fault> {
    let unreadable = |reason: String| Fault::PemUnreadable { file: file.display().to_string(), reason };
    fs::read(file).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::plan;
    use crate::text::Lang;

    /// Line, path and code of every complaint about `[dns64]` with these keys.
    fn complaints(keys: &str) -> Vec<String> {
        let text = format!(
            "nat64.pool4 = [{{ prefix = \"198.51.100.0/28\" }}]\n[dns64]\nlisten = [\"::1\"]\n\
             upstream = [\"203.0.113.53\"]\n{keys}"
        );
        let problems = check(&plan::check(&text).unwrap());
        let view = |p: &Problem| p.view(Lang::En);
        problems.iter().map(|p| format!("{} {}: {}", p.line.unwrap(), p.path, view(p).code)).collect()
    }

    #[test]
    fn k48_files_that_cannot_be_used_are_named_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let pair = || rcgen::generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
        let (ours, other) = (pair(), pair());
        let certificate = file("certificate", &ours.cert.pem());
        let key = file("key", &ours.signing_key.serialize_pem());
        let wrong = file("wrong", &other.signing_key.serialize_pem());
        let tls = |certificate: &str, key: &str| {
            complaints(&format!(
                "[dns64.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\nlisten = [\"::1\"]\n"
            ))
        };
        assert_eq!(tls(&certificate, &key), [""; 0]);
        assert_eq!(tls("/nowhere", &key), ["6 dns64.tls.certificate: pem-unreadable"]);
        assert_eq!(tls(&certificate, "/nowhere"), ["7 dns64.tls.key: pem-unreadable"]);
        assert_eq!(tls(&certificate, &wrong), ["6 dns64.tls.certificate: certificate-unusable"]);
        assert_eq!(tls(&key, &key), ["6 dns64.tls.certificate: certificate-unusable"]);
        let authorities = |file: &str| complaints(&format!("upstream-ca = \"{file}\"\n"));
        assert_eq!(authorities(&certificate), [""; 0]);
        assert_eq!(authorities("/nowhere"), ["5 dns64.upstream-ca: pem-unreadable"]);
        assert_eq!(authorities(&key), ["5 dns64.upstream-ca: authorities-unusable"]);
    }

    #[test]
    fn the_same_files_read_again_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["certificate", "key"].map(|name| dir.path().join(name));
        let tls = TlsPlan::of_files(&certificate, &key);
        let made = || {
            let pair = rcgen::generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
            std::fs::write(&certificate, pair.cert.pem()).unwrap();
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            (read_own(&tls).unwrap(), trust(&certificate).unwrap())
        };
        let first = made();
        assert_eq!(first, (read_own(&tls).unwrap(), trust(&certificate).unwrap()));
        assert_ne!(first, made());
        assert_ne!(first.1, Trust::default());
    }
}
