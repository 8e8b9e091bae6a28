use super::*;
use crate::iptables::parse;
use seaway_model::Family;

#[test]
fn the_generation_is_found_in_the_kernels_answer() {
    let mut message = vec![0_u8; HEADERS];
    // NFTA_GEN_PROC_NAME first: odd length, padded.
    message.extend([7, 0, 3, 0, b'n', b'f', b't', 0]);
    message.extend([8, 0, 1, 0, 0, 0, 1, 2]);
    assert_eq!(read_generation(&message), Some(258));
}

#[test]
fn a_short_or_broken_answer_has_none() {
    for tail in [
        &[][..],
        &[0, 0, 1, 0],
        &[3, 0, 1, 0, 0],
        &[8, 0, 1, 0, 0, 0],
        &[255, 255, 1, 0],
        &[4, 0, 9, 0],
    ] {
        let mut message = vec![0_u8; HEADERS];
        message.extend(tail);
        assert_eq!(read_generation(&message), None, "{tail:?}");
    }
    assert_eq!(read_generation(&[0; 4]), None);
}

#[test]
fn a_slow_look_is_repeated_less_often() {
    assert_eq!(pause(Duration::from_millis(3)), PAUSE);
    assert_eq!(pause(Duration::from_secs(1)), Duration::from_secs(40));
}

#[test]
fn differences_are_named() {
    let chains = |text: &str| parse::saved(&format!("*nat\n{text}"), Family::V4);
    let image = chains(":SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n-A OUTPUT -j SEAWAY-A");
    let check = |actual: &str, expected: Option<&str>| {
        assert_eq!(difference(&image, &chains(actual)).as_deref(), expected);
    };
    check(
        "-A OUTPUT -j ACCEPT\n-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT",
        None,
    );
    check(
        ":SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT",
        Some("chain OUTPUT of table nat has lost its jump to our chains"),
    );
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j DROP",
        Some("chain SEAWAY-A of table nat was changed"),
    );
    check(
        "",
        Some("chain OUTPUT of table nat has lost its jump to our chains, and 1 other chains"),
    );
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n:SEAWAY-B - [0:0]",
        Some("chain SEAWAY-B of table nat was added"),
    );
    // A chain of somebody's own that uses ours is nothing to repair.
    check(
        "-A OUTPUT -j SEAWAY-A\n:SEAWAY-A - [0:0]\n-A SEAWAY-A -j ACCEPT\n-A MINE -j SEAWAY-A",
        None,
    );
}
