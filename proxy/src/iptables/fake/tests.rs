use super::*;

fn check(lines: &[&str], expected: &Result<(), Refused>) {
    let mut fake = Fake::new(Family::V4);
    let before = fake.clone();
    let text = format!("*nat\n{}\nCOMMIT\n", lines.join("\n"));
    assert_eq!(&fake.restore(&text), expected, "{text}");
    if expected.is_err() {
        assert_eq!(fake, before);
    }
}

fn refused(line: usize, why: Refusal) -> Result<(), Refused> {
    Err(Refused { line, why })
}

fn name(name: &str) -> ChainName {
    ChainName::new(name)
}

#[test]
fn jumps_need_their_target() {
    check(&[":A - [0:0]", "-A OUTPUT -j A"], &Ok(()));
    check(
        &["-A OUTPUT -j A"],
        &refused(2, Refusal::NoTarget(name("A"))),
    );
    check(
        &["-A OUTPUT -j A", ":A - [0:0]"],
        &refused(2, Refusal::NoTarget(name("A"))),
    );
    check(
        &["-A A -j ACCEPT"],
        &refused(2, Refusal::NoChain(name("A"))),
    );
}

#[test]
fn only_empty_chains_without_references_go() {
    check(&[":A - [0:0]", "-X A"], &Ok(()));
    check(&["-X A"], &refused(2, Refusal::NoChain(name("A"))));
    check(
        &[":A - [0:0]", "-A OUTPUT -j A", "-X A"],
        &refused(4, Refusal::InUse(name("A"))),
    );
    check(
        &[":A - [0:0]", "-A A -j ACCEPT", "-X A"],
        &refused(4, Refusal::NotEmpty(name("A"))),
    );
    check(
        &[":A - [0:0]", "-A OUTPUT -j A", "-D OUTPUT -j A", "-X A"],
        &Ok(()),
    );
    check(
        &["-X OUTPUT"],
        &refused(2, Refusal::BuiltIn(name("OUTPUT"))),
    );
}

#[test]
fn a_rule_is_deleted_once_and_only_if_it_is_there() {
    let twice = ["-A OUTPUT -j ACCEPT", "-A OUTPUT -j ACCEPT"];
    let delete = "-D OUTPUT -j ACCEPT";
    check(&[twice[0], twice[1], delete, delete], &Ok(()));
    check(&[twice[0], delete, delete], &refused(4, Refusal::NoRule));
}

#[test]
fn numbers_count_from_one_and_end_with_the_chain() {
    let one = ":A - [0:0]\n-A A -j ACCEPT";
    let no = |number| refused(4, Refusal::NoNumber(name("A"), number));
    for (line, expected) in [
        ("-I A 1 -j RETURN", Ok(())),
        ("-I A 2 -j RETURN", Ok(())),
        ("-I A 3 -j RETURN", no(3)),
        ("-R A 1 -j RETURN", Ok(())),
        ("-R A 2 -j RETURN", no(2)),
        ("-R A 0 -j RETURN", no(0)),
        ("-D A 1", Ok(())),
        ("-D A 2", no(2)),
        ("-R A 1 -j B", refused(4, Refusal::NoTarget(name("B")))),
        ("-R A -j RETURN", refused(4, Refusal::NotUnderstood)),
        ("-R B 1 -j RETURN", refused(4, Refusal::NoChain(name("B")))),
        ("-D B 1", refused(4, Refusal::NoChain(name("B")))),
    ] {
        check(&[one, line], &expected);
    }
    let mut fake = Fake::new(Family::V4);
    let lines =
        "-I A 2 -j RETURN\n-R A 1 -j DROP\n-A A -j RETURN\n-D A 2\n-I A 1 ! -s 10.0.0.1 -j ACCEPT";
    fake.restore(&format!("*filter\n{one}\n{lines}\nCOMMIT\n"))
        .unwrap();
    let id = ChainId::filter(&name("A"));
    let rules = ["! -s 10.0.0.1 -j ACCEPT", "-j DROP", "-j RETURN"];
    let rules = rules.map(|rule| parse::rule(rule, Family::V4));
    assert_eq!(fake.rules(&id), Some(&rules[..]));
}

#[test]
fn loops_and_misplaced_targets_are_refused_when_committed() {
    check(
        &[":A - [0:0]", "-A A -j A", "-A OUTPUT -j A"],
        &refused(5, Refusal::Loop(name("A"))),
    );
    check(
        &["-A OUTPUT -j REJECT --reject-with icmp-port-unreachable"],
        &refused(3, Refusal::WrongTable(name("OUTPUT"))),
    );
    let dnat = "-A A -p tcp -j DNAT --to-destination 10.0.0.1:80";
    check(&[":A - [0:0]", dnat, "-A OUTPUT -j A"], &Ok(()));
    check(
        &[":A - [0:0]", dnat, "-A POSTROUTING -j A"],
        &refused(5, Refusal::WrongHook(name("A"))),
    );
}

#[test]
fn the_tables_before_a_refused_one_stay() {
    let mut fake = Fake::new(Family::V4);
    let text = "*filter\n:SEAWAY-A - [0:0]\nCOMMIT\n*nat\n-X SEAWAY-A\nCOMMIT\n";
    assert_eq!(fake.restore(text).unwrap_err().line, 5);
    let id = ChainId::filter(&name("SEAWAY-A"));
    assert_eq!(fake.rules(&id), Some(&[][..]));
    assert_eq!(fake.chains().len(), 1);
    assert_eq!(
        fake.restore("*nat\n-A OUTPUT -j ACCEPT\n"),
        refused(2, Refusal::NoCommit)
    );
    assert_eq!(fake.restore("*raw\n"), refused(1, Refusal::NoTable));
}
