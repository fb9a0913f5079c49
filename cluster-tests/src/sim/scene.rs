//! Where a world begins: its site with structure and accounts.

use ackord_machine::site::{
    Access, AdminAction, ClientId, Command, EventDefinition, EventName, GuestSupport, Incarnation,
    Kind as EventKind, RequestId, RoleName, ServiceId, SiteName, SiteSettings, Structure, UserId,
};

/// The site's name.
pub const SITE: &str = "world";

/// The service with this index.
pub fn service_id(index: usize) -> ServiceId {
    ServiceId::from(format!("service-{index}"))
}

/// The client with this index.
pub fn client_id(index: usize) -> ClientId {
    ClientId::from(format!("client-{index}"))
}

fn structure() -> Structure {
    let event = |name: &str, kind| EventDefinition { name: EventName::from(name), kind };
    let queueing = |size, access| EventKind::Queueing { lifetime_s: 86_400, size, access };
    let roles = Access::Roles(vec![RoleName::from("watcher")]);
    Structure {
        service_type: "simulated".to_owned(),
        contract_author: "nobody".to_owned(),
        guests: GuestSupport::GuestAndStateless,
        roles: vec![RoleName::from("watcher")],
        owner_role: None,
        events: vec![
            event("reading", queueing(1000, Access::Everyone)),
            event("burst", queueing(3, Access::Everyone)),
            event("alarm", queueing(1000, roles)),
            event("state", EventKind::Replacing { access: Access::Everyone }),
            event("notice", EventKind::Private { lifetime_s: 86_400 }),
        ],
    }
}

/// The client that a private event's text names.
pub fn addressee(text: &str) -> usize {
    let digits = text.rsplit('c').next().unwrap_or_default().trim_end_matches('"');
    digits.parse().unwrap_or(usize::MAX)
}

/// The commands that make the site with its accounts.
pub fn setup(services: usize, clients: usize) -> Vec<Command> {
    let site = SiteName::from(SITE);
    let settings = SiteSettings {
        multi_service: services > 1,
        constructible: false,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    let user = UserId::from("user");
    let roles = vec![RoleName::from("watcher")];
    let (incarnation, rebuild) = (Incarnation(5), false);
    let mut actions = vec![
        AdminAction::CreateSite { settings, incarnation },
        AdminAction::ApplyStructure { structure: structure(), rebuild, incarnation },
        AdminAction::CreateUser { id: user.clone(), roles },
    ];
    actions.extend((0..services).map(|i| AdminAction::CreateService { id: service_id(i) }));
    actions.extend(
        (0..clients)
            .map(|i| AdminAction::CreateClient { id: client_id(i), user: Some(user.clone()) }),
    );
    let command = |(number, action): (usize, AdminAction)| Command::Admin {
        request: RequestId([number as u8; 16]),
        site: site.clone(),
        action,
    };
    actions.into_iter().enumerate().map(command).collect()
}
