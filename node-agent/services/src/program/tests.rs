//! Changes of services in, changes of elements out.

use super::*;
use crate::wanted::Group;

fn backend(text: &str) -> Backend {
    let (host, is_local) = text.strip_suffix('!').map_or((text, false), |host| (host, true));
    Backend {
        address: Ipv4Addr::new(10, 42, 0, host.parse().unwrap()),
        port: 8080,
        is_local,
    }
}

/// A service at 10.43.0.`host`:80 with these backends; those with `!` are local.
fn wants(host: u8, backends: &str, protocol: Protocol) -> Wanted {
    let backends: Vec<_> = backends.split_whitespace().map(backend).collect();
    let goal = if backends.is_empty() {
        Goal::Reject
    } else {
        Goal::Group(0)
    };
    let group = Group {
        hash: 7,
        backends,
        sticky_seconds: None,
    };
    Wanted {
        sources: Box::default(),
        groups: if goal == Goal::Reject {
            Vec::new()
        } else {
            vec![group]
        },
        entries: vec![Entry {
            frontend: Frontend {
                address: Ipv4Addr::new(10, 43, 0, host),
                protocol,
                port: 80,
            },
            outside: goal,
            inside: None,
            masquerade: false,
            is_guarded: false,
        }],
    }
}

fn shown(element: &Element) -> String {
    let tail = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".");
    let number = u32::from_ne_bytes(element.key[12..16].try_into().unwrap());
    match (element.set, element.data) {
        ("outside_backends", Data::Words(words, _)) => format!("backend {number}={}", words[3]),
        (_, Data::Choose(choice)) => format!("{}→{}", element.set, choice.chain()),
        (_, Data::Chain(chain)) => format!("{}→{chain}", element.set),
        (set, Data::Words(..)) => set.to_owned(),
        (set, Data::None) => format!("{set} {}", tail(&element.key[..4])),
    }
}

/// Minus what goes, plus what comes.
fn update(program: &mut Program, name: &str, wanted: Wanted) -> String {
    let mut update = Update::default();
    program.update(&name.into(), wanted, &mut update);
    let removed = update
        .changes
        .removed
        .iter()
        .map(|element| format!("-{}", shown(element)));
    let added = update
        .changes
        .added
        .iter()
        .map(|element| format!("+{}", shown(element)));
    let mut all: Vec<String> = removed.chain(added).collect();
    all.sort();
    all.join(" ")
}

#[test]
fn an_update_touches_only_what_changed() {
    let mut program = Program::default();
    let tcp = |backends: &str| wants(5, backends, Protocol::Tcp);
    assert_eq!(
        update(&mut program, "shop/web", tcp("1 2 3")),
        "+backend 0=1 +backend 1=2 +backend 2=3 +outside→outside_3"
    );
    assert_eq!(update(&mut program, "shop/web", tcp("1 2 3")), "");
    assert_eq!(
        update(&mut program, "shop/web", tcp("1 2 3 4")),
        "+backend 3=4 +outside→outside_4 -outside→outside_3"
    );
    assert_eq!(
        update(&mut program, "shop/web", tcp("2 3 4")),
        "+backend 0=4 +outside→outside_3 -backend 0=1 -backend 3=4 -outside→outside_4",
        "the last one takes the place of the one that went"
    );
    assert_eq!(
        update(&mut program, "shop/web", tcp("2 5 4")),
        "+backend 2=5 -backend 2=3",
        "one for one"
    );
    assert_eq!(
        update(&mut program, "shop/web", tcp("")),
        "+refused→rejecting -backend 0=4 -backend 1=2 -backend 2=5 -outside→outside_3"
    );
    assert_eq!(
        update(&mut program, "shop/web", Wanted::default()),
        "-refused→rejecting"
    );
    assert!(program.elements().is_empty() && program.owners.is_empty());
}

#[test]
fn what_services_share_stays_until_the_last_has_gone() {
    let mut program = Program::default();
    assert!(update(&mut program, "a/a", wants(5, "1!", Protocol::Tcp)).contains("+hairpins 10.42.0.1"));
    assert!(!update(&mut program, "b/b", wants(6, "1!", Protocol::Tcp)).contains("hairpins"));
    assert!(!update(&mut program, "a/a", Wanted::default()).contains("hairpins"));
    assert!(update(&mut program, "b/b", Wanted::default()).contains("-hairpins 10.42.0.1"));
}

#[test]
fn an_address_belongs_to_the_first_service_and_then_to_the_next() {
    let mut program = Program::default();
    update(&mut program, "a/a", wants(5, "1", Protocol::Tcp));
    assert!(!update(&mut program, "b/b", wants(5, "2", Protocol::Tcp)).contains("outside"));
    let mut freed = Update::default();
    program.update(&"a/a".into(), Wanted::default(), &mut freed);
    assert_eq!(freed.released.first().map(|name| &**name), Some("b/b"));
    assert!(update(&mut program, "b/b", wants(5, "2", Protocol::Tcp)).contains("+outside→outside_1"));
}

#[test]
fn only_udp_flows_to_what_is_gone_are_ended() {
    let mut program = Program::default();
    let mut stale = |wanted: Wanted| {
        let mut update = Update::default();
        program.update(&"a/a".into(), wanted, &mut update);
        let flow = |flow: &StaleFlow| {
            flow.backend.map_or("nowhere".to_owned(), |(address, _)| {
                address.octets()[3].to_string()
            })
        };
        let mut all: Vec<_> = update.stale.iter().map(flow).collect();
        all.sort();
        all.join(" ")
    };
    assert_eq!(stale(wants(5, "", Protocol::Udp)), "");
    assert_eq!(stale(wants(5, "1 2 3", Protocol::Udp)), "nowhere");
    assert_eq!(stale(wants(5, "2", Protocol::Udp)), "1 3");
    assert_eq!(stale(Wanted::default()), "2");
    assert_eq!(stale(wants(5, "1", Protocol::Tcp)), "");
    assert_eq!(stale(Wanted::default()), "");
}
