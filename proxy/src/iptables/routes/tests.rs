use super::*;

fn to(network: &str, protocol: u8) -> Route {
    Route {
        link: Some(2),
        ..Route::new(network.parse().unwrap(), protocol)
    }
}

fn check(routes: &[Route], expected: &[&str]) {
    let parse = |text: &&str| text.parse().unwrap();
    let addresses = ["10.96.0.1", "10.96.1.1", "fd00:10:96::1"];
    let addresses = addresses.iter().map(parse).collect();
    let expected: BTreeSet<IpAddr> = expected.iter().map(parse).collect();
    assert_eq!(unroutable(routes, &addresses), expected);
}

#[test]
fn a_default_route_of_the_family_is_enough() {
    let (v4, v6) = (to("0.0.0.0/0", 3), to("::/0", 3));
    check(&[v4.clone(), v6.clone()], &[]);
    check(&[v6], &["10.96.0.1", "10.96.1.1"]);
    check(std::slice::from_ref(&v4), &["fd00:10:96::1"]);
    // One that says no is none.
    let refusal = Route {
        kind: RouteKind::Unreachable,
        ..v4
    };
    check(&[refusal], &["10.96.0.1", "10.96.1.1", "fd00:10:96::1"]);
}

#[test]
fn so_is_any_route_that_leads_there() {
    let pods = to("10.244.0.0/24", ROUTE_PROTOCOL);
    let some = to("10.96.0.0/24", 4);
    check(&[pods, some], &["10.96.1.1", "fd00:10:96::1"]);
}

#[test]
fn our_own_do_not_count() {
    let own = route("10.96.0.1".parse().unwrap(), 2);
    assert!(is_ours(&own));
    let of_the_plugin = to("10.96.1.1/32", ROUTE_PROTOCOL);
    assert!(!is_ours(&of_the_plugin));
    check(&[own, of_the_plugin], &["10.96.0.1", "fd00:10:96::1"]);
}

#[test]
fn routes_and_links_of_pods_are_no_concern() {
    let frontends: IpNetwork = "10.96.0.0/24".parse().unwrap();
    let has = |network: IpNetwork| frontends.contains(network.ip()) || network.prefix() < 24;
    let check = |event: Event, expected: bool| {
        assert_eq!(concerns(&event, has), expected, "{event:?}");
    };
    let own = route("10.96.0.1".parse().unwrap(), 2);
    check(Event::RouteSet(to("0.0.0.0/0", 3)), true);
    check(Event::RouteDeleted(to("::/0", 3)), true);
    check(Event::RouteSet(to("10.0.0.0/8", 3)), true);
    check(Event::RouteSet(to("10.96.0.128/25", 3)), true);
    check(Event::RouteSet(to("10.244.1.2/32", ROUTE_PROTOCOL)), false);
    check(Event::RouteSet(own.clone()), false);
    check(Event::RouteDeleted(own), true);
}
