//! What the proxy goes by at a moment: routes and certificates, made anew from the rules when these change.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::balancer::{Balancer, Endpoints};
use crate::certificates::{complain, parse};
use crate::declared::{Declared, Tls};
use crate::hosts::Hosts;
use crate::rules::{KeyPair, Known};
use crate::table::{Place, ServicePort, Table};

/// Routes and certificates.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) table: Table<Arc<Balancer>>,
    pub(crate) certificates: Hosts<Arc<CertifiedKey>>,
}

/// Makes what is live, and keeps what stays the same.
pub(crate) struct Maker {
    endpoints: Arc<dyn Endpoints>,
    balancers: HashMap<ServicePort, Arc<Balancer>>,
    /// Certificates as they were read, with what they were read from; nothing where they cannot be used.
    parsed: HashMap<Place, (Arc<KeyPair>, Option<Arc<CertifiedKey>>)>,
}

impl Maker {
    pub(crate) fn new(endpoints: Arc<dyn Endpoints>) -> Self {
        Self {
            endpoints,
            balancers: HashMap::new(),
            parsed: HashMap::new(),
        }
    }

    /// What is live by these rules; nothing when no ingress is ours.
    pub(crate) fn make(&mut self, known: &Known) -> Option<Live> {
        let served = known.served();
        let certificates = self.certificates(&served, known);
        let old = std::mem::take(&mut self.balancers);
        if served.is_empty() {
            return None;
        }
        let (endpoints, balancers) = (&self.endpoints, &mut self.balancers);
        let table = Table::new(served.into_iter(), |service| {
            let made = || match old.get(&service) {
                Some(known) => known.clone(),
                None => Arc::new(Balancer::new(service.clone(), endpoints.clone())),
            };
            balancers.entry(service.clone()).or_insert_with(made).clone()
        });
        Some(Live { table, certificates })
    }

    fn certificates(&mut self, served: &[(&Place, &Declared)], known: &Known) -> Hosts<Arc<CertifiedKey>> {
        let mut old = std::mem::take(&mut self.parsed);
        let mut hosts = Hosts::default();
        for ((namespace, _), declared) in served {
            for tls in &declared.tls {
                let place = (namespace.clone(), tls.secret.clone());
                let Some(pair) = known.secrets.get(&place) else {
                    continue;
                };
                let read = self.parsed.entry(place.clone()).or_insert_with(|| {
                    let same = old.remove(&place).filter(|(from, _)| Arc::ptr_eq(from, pair));
                    same.unwrap_or_else(|| (pair.clone(), read(&place, pair)))
                });
                if let (_, Some(certificate)) = read {
                    for host in hosts_of(tls, declared) {
                        hosts.entry_or(host, || certificate.clone());
                    }
                }
            }
        }
        hosts
    }
}

/// The hosts that a certificate is for: those that are listed, else those of the rules and everybody else's.
fn hosts_of<'a>(tls: &'a Tls, declared: &'a Declared) -> impl Iterator<Item = &'a str> {
    let all = tls.hosts.is_empty();
    let listed = tls.hosts.iter().map(|host| &**host);
    let of_rules = declared.rules.iter().map(|rule| &*rule.host).chain([""]);
    listed.chain(of_rules.filter(move |_| all))
}

fn read((namespace, name): &Place, pair: &KeyPair) -> Option<Arc<CertifiedKey>> {
    match parse(&pair.certificate, &pair.key) {
        Ok(certificate) => Some(Arc::new(certificate)),
        Err(error) => {
            complain(namespace, name, &error);
            None
        }
    }
}
