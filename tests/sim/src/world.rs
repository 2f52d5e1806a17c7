//! The world: hosts, network and clients, and the time that they share.
//!
//! All hosts go forward together, one tick after the other, and what one sends is never there before the next tick:
//! so it does not matter which host of a tick goes first.

mod inject;
mod phases;

use std::collections::BTreeMap;

use crate::TICK_MS;
use crate::chance::Chance;
use crate::clients::Clients;
use crate::disk::Health;
use crate::faults::Menu;
use crate::host::{Begin, Clock, Host, Refusal, Setting, Stage};
use crate::invariants::Checks;
use crate::network::{HostId, Message, Network, Parcel, Weather, way};
use crate::panics;
use crate::plan::Plan;
use crate::trace::Trace;

pub(crate) use self::phases::run;

/// Everything.
pub(crate) struct World {
    now: u64,
    plan: Plan,
    menu: Menu,
    chance: Chance,
    network: Network,
    trace: Trace,
    checks: Checks,
    setting: Setting,
    hosts: Vec<Host>,
    clients: Clients,
    clients_clock: Clock,
    /// What ends, by time.
    ends: BTreeMap<(u64, u64), End>,
    scheduled: u64,
    next_member: u64,
    moves: u64,
    faults: u64,
    /// A disk or an address was lost, and is not replaced yet; then a write has to get through as well.
    loss: Loss,
}

/// How far the replacement of a lost disk or address has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    /// Until the host is a member again.
    Of(HostId),
    /// Until a write that began later was acknowledged: then a majority has everything.
    RepairedAt(u64),
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
enum End {
    Start(HostId),
    /// A process that ended in order is gone, and comes back later.
    Gone(HostId, u64),
    Resume(HostId, bool),
    Cuts,
    Weather,
    Disk(HostId),
}

impl World {
    fn tick(&mut self) {
        self.now += TICK_MS;
        self.trace.set_now(self.now);
        self.network.set_now(self.now);
        for message in self.network.due(self.now) {
            self.deliver(message);
        }
        let later = self.ends.split_off(&(self.now + 1, 0));
        for end in std::mem::replace(&mut self.ends, later).into_values() {
            self.end(end);
        }
        for host in &mut self.hosts {
            host.step(self.now, TICK_MS);
        }
        self.clients_clock.run(TICK_MS);
        self.look();
    }

    fn deliver(&mut self, message: Message) {
        if self.network.is_cut(message.from, message.to) {
            return self.network.lose(message);
        }
        let Message {
            from,
            to,
            what,
            parcel,
        } = message;
        match parcel {
            Parcel::Lost(_) => {}
            Parcel::Answer(tell) => {
                self.trace
                    .note(format_args!("answer to {what} {}", way(from, to)));
                tell();
            }
            Parcel::Request(arrival) => {
                self.trace.note(format_args!("{what} {}", way(from, to)));
                let host = self.hosts.get_mut(to);
                if !host.is_some_and(|host| host.arrive(arrival.clone())) {
                    // Sends the refusal, and waits for nothing.
                    let refusal = arrival(None);
                    futures::executor::block_on(refusal);
                }
            }
        }
    }

    /// Looks at what replicas say, and at processes that ended.
    fn look(&mut self) {
        for host in self.hosts.iter().filter(|host| host.is_running()) {
            if let Some(replica) = host.replica() {
                self.checks
                    .leadership(host.member, &replica.leadership().borrow());
            }
        }
        if let Some(panic) = panics::take() {
            self.checks.violated(format!("a panic: {panic}"));
        }
        for host in 0..self.hosts.len() {
            if let Some(Stage::Refused(refusal)) = self.hosts[host].stage() {
                self.refused(host, refusal);
            }
        }
        self.loss = match self.loss {
            Loss::Of(host) if matches!(self.hosts[host].stage(), Some(Stage::Member(_))) => {
                let _guard = self.clients_clock.runtime.enter();
                Loss::RepairedAt(self.clients.now())
            }
            Loss::RepairedAt(time) if self.clients.has_written_since(time) => Loss::None,
            loss => loss,
        };
    }

    /// What an operator does with a process that does not start.
    fn refused(&mut self, host: HostId, refusal: Refusal) {
        self.trace.note(format_args!("{host} refuses: {refusal:?}"));
        let broken = &mut self.hosts[host];
        broken.kill(crate::disk::Cut::Process);
        match refusal {
            Refusal::Damaged(_) | Refusal::Disk(_) if broken.is_damaged => {
                self.replace(host);
                self.schedule(100, End::Start(host));
            }
            Refusal::Disk(_) => {
                broken.disk.set_health(Health::default());
                self.schedule(200, End::Start(host));
            }
            Refusal::Damaged(damage) => {
                let what = format!("member {} refuses undamaged data: {damage}", broken.member);
                self.checks.violated(what);
            }
            Refusal::Unwanted(reason) => {
                let what = format!("the cluster refuses member {}: {reason}", broken.member);
                self.checks.violated(what);
            }
        }
    }

    /// The host's data is gone; it comes back as another member.
    fn replace(&mut self, host: HostId) {
        let member = self.next_member;
        self.next_member += 1;
        let lost = &mut self.hosts[host];
        self.trace
            .note(format_args!("{host}: member {} becomes {member}", lost.member));
        lost.disk.wipe();
        lost.member = member;
        lost.is_damaged = false;
        self.loss = Loss::Of(host);
    }

    fn start(&mut self, host: HostId) {
        if self.hosts[host].stage().is_some() {
            return;
        }
        let servers = self.network.addresses();
        self.trace.note(format_args!("{host} starts"));
        self.hosts[host].start(Begin::Join(servers));
    }

    fn schedule(&mut self, after: u64, end: End) {
        self.scheduled += 1;
        self.ends.insert((self.now + after, self.scheduled), end);
    }

    fn leading(&self) -> Option<HostId> {
        let leads = |host: &&Host| {
            let replica = host.replica().filter(|_| host.is_running());
            replica.is_some_and(|replica| replica.leadership().borrow().is_self)
        };
        self.hosts.iter().find(leads).map(|host| host.id)
    }

    fn fair_weather(&self) -> Weather {
        self.plan.weather
    }
}
