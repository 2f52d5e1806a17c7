//! A run from its beginning to its end: a cluster comes to be, things go wrong, everything heals, all is checked.

use std::collections::BTreeMap;

use super::{End, Loss, World};
use crate::chance::Chance;
use crate::clients::Clients;
use crate::disk::Health;
use crate::faults::{Fault, Menu};
use crate::host::{Begin, Clock, Host, Setting, Stage};
use crate::invariants::Checks;
use crate::network::Network;
use crate::plan::Plan;
use crate::report::{Failure, Report};
use crate::trace::Trace;

/// How long a cluster without faults may take for what it has to do.
const LIMIT_MS: u64 = 60_000;

/// Runs a seed, with faults by chance or, for a scenario, with these at their times.
pub(crate) fn run(plan: Plan, scenario: &[(u64, Fault)], is_printed: bool) -> Result<Report, Failure> {
    let seed = plan.seed;
    let mut world = World::new(plan, Trace::new(is_printed));
    let ran = world.live(scenario);
    let report = Report {
        seed,
        sum: world.trace.sum(),
        virtual_ms: world.now,
        faults: world.faults,
        operations: world.clients.history().operations.len(),
    };
    match ran.err().or_else(|| world.checks.violation()) {
        Some(what) => Err(Failure { report, what }),
        None => Ok(report),
    }
}

impl World {
    fn new(plan: Plan, trace: Trace) -> World {
        let seed = plan.seed;
        flotilla_raft::runtime::seed_this_thread(seed);
        crate::panics::listen();
        let network = Network::new(seed, trace.clone());
        network.set_weather(plan.weather);
        let checks = Checks::default();
        let setting = Setting {
            seed,
            timing: plan.timing,
            limits: plan.limits,
            network: network.clone(),
            checks: checks.clone(),
            trace: trace.clone(),
        };
        let chance = Chance::new(seed, "faults");
        let clients_clock = Clock::new(seed);
        let clients = {
            let _guard = clients_clock.runtime.enter();
            Clients::new(seed, network.clone(), trace.clone())
        };
        World {
            now: 0,
            menu: Menu::new(&chance),
            plan,
            chance,
            network,
            trace,
            checks,
            setting,
            hosts: Vec::new(),
            clients,
            clients_clock,
            ends: BTreeMap::new(),
            scheduled: 0,
            next_member: 1,
            moves: 0,
            faults: 0,
            loss: Loss::None,
        }
    }

    fn live(&mut self, scenario: &[(u64, Fault)]) -> Result<(), String> {
        self.found()?;
        self.on_clients(|clients, plan| clients.start(plan.writers, plan.watchers));
        self.go_wrong(scenario)?;
        self.heal();
        self.on_clients(|clients, _| clients.probe());
        self.until("every server serves again", |world| {
            world.clients.is_served() && world.all_are_members()
        })?;
        self.clients.stop();
        self.until("all operations return", |world| world.clients.has_stopped())?;
        self.on_clients(|clients, _| clients.look());
        self.until("every watcher sees the last change", |world| {
            world.clients.is_over()
        })?;
        self.until("every replica has everything", World::all_are_equal)?;
        let replicas: Vec<_> = self
            .hosts
            .iter()
            .filter_map(|host| Some((host.member, host.replica()?.snapshot())))
            .collect();
        self.checks.finish(&self.clients.history(), &replicas);
        Ok(())
    }

    /// The first cluster, without faults.
    fn found(&mut self) -> Result<(), String> {
        for id in 0..self.plan.hosts {
            let member = self.next_member;
            self.next_member += 1;
            let mut host = Host::new(id, member, self.setting.clone());
            host.drift_permille = self.chance.number(0..self.plan.drift_permille + 1);
            let servers = self.network.addresses();
            host.start(if id == 0 {
                Begin::Bootstrap
            } else {
                Begin::Join(servers)
            });
            self.hosts.push(host);
            self.until("a server becomes a member", World::all_are_members)?;
        }
        Ok(())
    }

    fn go_wrong(&mut self, scenario: &[(u64, Fault)]) -> Result<(), String> {
        let begin = self.now;
        let mut scenario = scenario.iter().peekable();
        let is_scripted = scenario.peek().is_some();
        while self.now < begin + self.plan.chaos_ms {
            while let Some((_, fault)) = scenario.next_if(|(at, _)| begin + at <= self.now) {
                self.inject(fault.clone());
            }
            if !is_scripted {
                self.maybe_fault();
            }
            self.tick();
            self.check()?;
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.trace.note(format_args!("heal"));
        self.network.heal();
        self.network.set_weather(self.fair_weather());
        let ends = std::mem::take(&mut self.ends);
        for end in ends.into_values() {
            // What was about to end in order has no time left for it.
            let end = match end {
                End::Gone(host, _) => End::Gone(host, 0),
                end => end,
            };
            self.end(end);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.set_health(Health::default());
            self.start(host);
        }
    }

    /// Lets time go by until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), String> {
        let limit = self.now + LIMIT_MS;
        while !holds(self) {
            if self.now >= limit {
                return Err(format!(
                    "no progress: {what} did not come true; {}",
                    self.describe()
                ));
            }
            self.tick();
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.checks.violation().map_or(Ok(()), Err)
    }

    fn all_are_members(&self) -> bool {
        let is_member = |host: &Host| matches!(host.stage(), Some(Stage::Member(_)));
        self.hosts.iter().all(is_member)
    }

    fn all_are_equal(&self) -> bool {
        let mut revisions = self
            .hosts
            .iter()
            .map(|host| Some(host.replica()?.snapshot().revision()));
        let first = revisions.next().flatten();
        first.is_some() && revisions.all(|revision| revision == first)
    }

    fn describe(&self) -> String {
        let hosts = self.hosts.iter().map(|host| match host.replica() {
            Some(replica) => {
                let leadership = replica.leadership().borrow().clone();
                let leader = leadership.leader.map(|leader| leader.id);
                let members: Vec<String> = leadership
                    .members
                    .iter()
                    .map(|member| format!("{}{}", member.id, if member.voter { "" } else { "?" }))
                    .collect();
                format!(
                    "member {} at revision {}, term {}, leader {leader:?}, members {}",
                    host.member,
                    replica.snapshot().revision(),
                    leadership.term,
                    members.join(" ")
                )
            }
            None => format!("member {} does not serve", host.member),
        });
        hosts.collect::<Vec<_>>().join("; ")
    }

    fn on_clients(&self, work: impl FnOnce(&Clients, &Plan)) {
        let _guard = self.clients_clock.runtime.enter();
        work(&self.clients, &self.plan);
    }
}
