//! What goes wrong in a world, and what administrators do in it.

use ackord_machine::site::{
    AdminAction, Command, EventName, InstanceId, RequestId, RoleName, SiteName, UserId,
};

use super::agenda::Happening;
use super::broker::LinkId;
use super::link::Peer;
use super::scene::{SITE, client_id};
use super::world::World;

impl World {
    /// One fault, and the next is planned; once calm is due, everyone gets its role back.
    pub(super) fn fault(&mut self) {
        if self.now >= self.calm_from {
            let grant = self.roles(vec![RoleName::from("watcher")]);
            let acts = self.broker.propose(grant);
            return self.act(acts);
        }
        self.later(20, 600, Happening::Fault);
        match self.seed.between(0, 12) {
            0 | 1 => self.broker_crashes(),
            2 | 3 => self.service_crashes(),
            4 | 5 => self.client_crashes(),
            6 => self.administration(),
            7 | 8 => self.leader_dies(),
            _ => self.cut_one(),
        }
    }

    pub(super) fn say(&self, what: &str) {
        if self.trace {
            eprintln!("{:>6} {what}", self.now);
        }
    }

    fn broker_crashes(&mut self) {
        if !self.broker.up {
            return;
        }
        self.faults[0] += 1;
        self.say("the broker crashes");
        self.broker.crash(&mut self.seed);
        self.write_due = false;
        self.wake_due = false;
        self.broker_timer = None;
        for link in self.links.all() {
            if let Some((_, peer_at)) = self.links.cut(link, self.now, &mut self.seed) {
                self.at(peer_at, Happening::PeerLearnsCut(link));
            }
        }
        self.later(5, 400, Happening::BrokerStarts);
    }

    /// Nobody leads the partition for a while: longer than anyone's patience now and then.
    fn leader_dies(&mut self) {
        if self.broker.away {
            return;
        }
        self.faults[5] += 1;
        self.say("nobody leads");
        self.broker.away = true;
        let high = if self.seed.between(0, 8) == 0 { 15_000 } else { 2_500 };
        self.later(100, high, Happening::Back);
    }

    fn service_crashes(&mut self) {
        let index = self.seed.between(0, self.services.len() as u64) as usize;
        if self.services[index].machine.is_none() {
            return;
        }
        self.faults[1] += 1;
        self.say(&format!("service {index} crashes"));
        let link = self.services[index].link;
        let torn = self.seed.between(0, 4) == 0;
        let on_its_way = self.keeping[index].take();
        if torn {
            self.faults[2] += 1;
            // What was there before the last batches may come back, and so may what they held.
            let host = &mut self.services[index];
            let before = host.held();
            host.crash(on_its_way, true, &mut self.seed);
            let after = host.held();
            self.oracle.torn(before.union(&after).cloned().collect());
        } else {
            self.services[index].crash(on_its_way, false, &mut self.seed);
        }
        self.abandon(link);
        self.later(5, 400, Happening::Starts(Peer::Service(index)));
    }

    fn client_crashes(&mut self) {
        let index = self.seed.between(0, self.clients.len() as u64) as usize;
        if self.clients[index].machine.is_none() {
            return;
        }
        self.faults[3] += 1;
        self.say(&format!("client {index} crashes"));
        let link = self.clients[index].link;
        let on_its_way = self.saving[index].take();
        let host = &mut self.clients[index];
        host.crash(on_its_way, &mut self.seed);
        for event in ["reading", "state", "burst", "alarm", "notice"] {
            let stored = host.stored(event);
            self.oracle.client_crashed(index, event, host.kind, stored);
        }
        self.abandon(link);
        self.later(5, 400, Happening::Starts(Peer::Client(index)));
    }

    /// The process behind a connection is gone; the broker learns of it some time later.
    fn abandon(&mut self, link: Option<LinkId>) {
        if let Some(link) = link
            && let Some((broker_at, _)) = self.links.cut(link, self.now, &mut self.seed)
        {
            self.at(broker_at, Happening::BrokerLearnsCut(link));
        }
    }

    fn cut_one(&mut self) {
        let links = self.links.all();
        if links.is_empty() {
            return;
        }
        self.faults[4] += 1;
        let link = links[self.seed.between(0, links.len() as u64) as usize];
        if let Some((broker_at, peer_at)) = self.links.cut(link, self.now, &mut self.seed) {
            self.at(broker_at, Happening::BrokerLearnsCut(link));
            self.at(peer_at, Happening::PeerLearnsCut(link));
        }
    }

    fn administration(&mut self) {
        if !self.broker.up {
            return;
        }
        let command = match self.seed.between(0, 3) {
            0 => self.roles(Vec::new()),
            1 => self.roles(vec![RoleName::from("watcher")]),
            _ => {
                let client = self.seed.between(0, self.clients.len() as u64) as usize;
                let event = EventName::from("reading");
                // Back only: what an administrator skips is nobody's loss.
                let cursor = self.broker.state().site(SITE).and_then(|site| {
                    let key = site.event_named("reading")?.key;
                    site.subscription(&client_id(client), key).map(|row| row.cursor.0)
                });
                let after = InstanceId(self.seed.between(0, cursor.unwrap_or(0) + 1));
                self.admin(AdminAction::Seek { client: client_id(client), event, after })
            }
        };
        let acts = self.broker.propose(command);
        self.act(acts);
    }

    fn roles(&mut self, roles: Vec<RoleName>) -> Command {
        self.admin(AdminAction::UpdateUser { id: UserId::from("user"), roles })
    }

    fn admin(&mut self, action: AdminAction) -> Command {
        self.requests += 1;
        let mut id = [0xff; 16];
        id[..8].copy_from_slice(&self.requests.to_be_bytes());
        Command::Admin { request: RequestId(id), site: SiteName::from(SITE), action }
    }
}
