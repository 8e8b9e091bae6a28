//! What the image says of itself, after a full plan, after partial ones, and read from a kernel.

use seaway_model::InputEvent;

use super::*;

/// Its own figures against counting anew.
fn check(image: &Image, wanted: &[[u8; 4]]) {
    for table in Table::ALL {
        let chains = image.chains.iter().filter(|(id, _)| id.table == table);
        let counted: usize = chains.map(|(_, rules)| rules.len()).sum();
        assert_eq!(image.rules(table), counted, "{table:?}");
        assert_ne!(counted, 0, "{table:?}");
    }
    let wanted: Vec<IpAddr> = wanted.iter().copied().map(IpAddr::from).collect();
    assert_eq!(image.addresses().collect::<Vec<_>>(), wanted);
}

/// Routes and the watch depend on it: the addresses that are served, and whether that has changed.
#[test]
fn a_lesson_says_whether_an_address_came_or_went() {
    let settings = Settings::new(Family::V4, &DetectLocal::None);
    let mut inputs = Inputs::default();
    let mut desired = Desired::default();
    let mut image = Image::default();
    let gone = |name| vec![InputEvent::Service(ObjectKey::new("default", name), None)];
    let (one, other) = ([10, 96, 0, 7], [10, 96, 0, 8]);
    for (step, events, moved, addresses) in [
        ("the first plan is full", vec![], true, &[][..]),
        ("a new one", service("a", 7, &[2]), true, &[one]),
        ("another endpoint", service("a", 7, &[3]), false, &[one]),
        ("a second at the same", service("b", 7, &[2]), false, &[one]),
        ("elsewhere", service("c", 8, &[2]), true, &[one, other]),
        ("the first goes", gone("a"), false, &[one, other]),
        ("the second too", gone("b"), true, &[other]),
        ("it moves", service("c", 7, &[2]), true, &[one]),
        ("the last goes", gone("c"), true, &[]),
    ] {
        let keys = events.into_iter().flat_map(|e| inputs.apply(e)).collect();
        desired.update(&inputs, &keys, &testing::settings());
        let plan = image.plan(&desired, &Change::Services(keys), &settings);
        assert_eq!(image.learn(plan), moved, "{step}");
        check(&image, addresses);
    }
}

#[test]
fn what_is_read_back_is_what_was_learnt() {
    let (_, desired, learnt, settings) = two_hundred();
    let mut kernel = learnt.chains.clone();
    let read = Image::observed(kernel.clone());
    assert_eq!(read.digest(), learnt.digest());
    assert_ne!(read.digest(), Image::default().digest());
    for table in Table::ALL {
        assert_eq!(read.rules(table), learnt.rules(table), "{table:?}");
    }

    // Somebody's own chain that jumps to ours is read, but it is not for us to say what it holds.
    let foreign = ChainId::nat(&ChainName::new("MINE"));
    let jump = Rule::new([], Target::Jump(ChainName::new(names::SERVICES)));
    kernel.insert(foreign, [jump].into());
    let read = Image::observed(kernel.clone());
    assert_eq!(read.digest(), learnt.digest());
    let plan = read.plan(&desired, &Change::Full, &settings);
    assert!(plan.transaction.is_empty(), "{}", plan.transaction);

    // A jump of ours in a built-in chain counts.
    kernel.remove(&ChainId::nat(&ChainName::new("OUTPUT")));
    assert_ne!(Image::observed(kernel).digest(), learnt.digest());
}

/// Should a partial plan ever forget a chain, the digests tell, and a full plan takes its place.
#[test]
fn a_plan_that_would_end_elsewhere_is_made_in_full() {
    let (mut inputs, mut desired, mut image, settings) = two_hundred();
    image.layout.digest = Digest::default();
    let events = service("svc-7", 7, &[2, 4]);
    let keys: BTreeSet<_> = events.into_iter().flat_map(|e| inputs.apply(e)).collect();
    desired.update(&inputs, &keys, &testing::settings());
    let plan = image.plan(&desired, &Change::Services(keys.clone()), &settings);
    assert!(plan.corrected);
    image.learn(plan);
    assert_eq!(image, full(&desired, &settings));
    let plan = image.plan(&desired, &Change::Services(keys), &settings);
    assert!(!plan.corrected);
}

#[test]
fn a_network_with_a_frontend_in_it_is_known() {
    let settings = Settings::new(Family::V4, &DetectLocal::None);
    let mut inputs = Inputs::default();
    for event in service("a", 7, &[2]) {
        inputs.apply(event);
    }
    let image = full(&derive_all(&inputs, &testing::settings()).0, &settings);
    for (network, expected) in [
        ("10.96.0.7/32", true),
        ("10.96.0.0/29", true),
        ("10.96.0.8/29", false),
        ("10.96.0.6/32", false),
        ("10.96.0.0/12", true),
        ("0.0.0.0/0", true),
        ("::/0", false),
    ] {
        let found = image.has_address_in(network.parse().unwrap());
        assert_eq!(found, expected, "{network}");
    }
}
