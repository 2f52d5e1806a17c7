//! Faults as they happen, and as they end.

use super::{End, Loss, World};
use crate::disk::{Cut, Health};
use crate::faults::{Fault, Scene};
use crate::host::Host;
use crate::network::HostId;

/// A process that ends in order gets this long for it.
const SHUTDOWN_MS: u64 = 600;

impl World {
    /// Lets something go wrong, if chance wants it.
    pub(super) fn maybe_fault(&mut self) {
        if !self.chance.permille(self.plan.faults_permille) {
            return;
        }
        let scene = self.scene();
        if let Some(fault) = self.menu.choose(&self.chance, &scene) {
            self.inject(fault);
        }
    }

    fn scene(&self) -> Scene {
        let running = self.hosts.iter().filter(|host| host.is_running());
        Scene {
            running: running.map(|host| host.id).collect(),
            all: self.hosts.iter().map(|host| host.id).collect(),
            leading: self.leading(),
            may_lose: self.loss == Loss::None && self.hosts.iter().all(|host| !host.is_damaged),
            may_grow: self.hosts.len() < self.plan.hosts_max,
        }
    }

    /// Lets something go wrong.
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.trace.note(format_args!("fault: {fault:?}"));
        self.faults += 1;
        match fault {
            Fault::Crash(host, lasts) => self.cut(host, Cut::Process, lasts),
            Fault::PowerCut(host, lasts) => self.cut(host, Cut::Power, lasts),
            Fault::PowerCutOfAll(lasts) => {
                for host in 0..self.hosts.len() {
                    self.cut(host, Cut::Power, lasts);
                }
            }
            Fault::Stop(host, lasts) => {
                self.hosts[host].shut_down();
                self.schedule(SHUTDOWN_MS, End::Gone(host, lasts));
            }
            Fault::Pause(host, lasts, clock_goes_on) => {
                self.hosts[host].pause();
                self.schedule(lasts, End::Resume(host, clock_goes_on));
            }
            Fault::Jump(host, ms) => self.hosts[host].jump(ms),
            Fault::Cut(links, lasts) => {
                for (from, to) in links {
                    self.network.cut(from, to);
                }
                self.schedule(lasts, End::Cuts);
            }
            Fault::Weather(weather, lasts) => {
                self.network.set_weather(weather);
                self.schedule(lasts, End::Weather);
            }
            Fault::Disk(host, health, lasts) => {
                self.hosts[host].disk.set_health(health);
                self.schedule(lasts, End::Disk(host));
            }
            Fault::FlipBit(host, lasts) => {
                self.cut(host, Cut::Process, lasts);
                self.hosts[host].is_damaged = self.hosts[host].disk.flip_a_bit();
            }
            Fault::Wipe(host, lasts) => {
                self.cut(host, Cut::Power, lasts);
                self.replace(host);
            }
            Fault::Move(host, lasts) => {
                self.cut(host, Cut::Process, lasts);
                self.moves += 1;
                let moved = &mut self.hosts[host];
                moved.address = format!("{}:{}", moved.name, self.moves + 1);
                self.loss = Loss::Of(host);
            }
            Fault::Grow => self.grow(),
        }
    }

    fn cut(&mut self, host: HostId, cut: Cut, lasts: u64) {
        self.hosts[host].kill(cut);
        self.schedule(lasts, End::Start(host));
    }

    fn grow(&mut self) {
        let (id, member) = (self.hosts.len(), self.next_member);
        self.next_member += 1;
        self.hosts.push(Host::new(id, member, self.setting.clone()));
        self.start(id);
    }

    /// Ends a fault.
    pub(super) fn end(&mut self, end: End) {
        self.trace.note(format_args!("end: {end:?}"));
        match end {
            End::Start(host) => self.start(host),
            End::Gone(host, lasts) => self.cut(host, Cut::Process, lasts),
            End::Resume(host, clock_went_on) => self.hosts[host].resume(clock_went_on),
            End::Cuts => self.network.heal(),
            End::Weather => self.network.set_weather(self.fair_weather()),
            End::Disk(host) => {
                self.hosts[host].disk.set_health(Health::default());
                // What failed once acknowledges nothing any more: somebody has to start it again.
                self.cut(host, Cut::Process, 50);
            }
        }
    }
}
