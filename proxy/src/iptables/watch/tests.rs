use super::*;

#[test]
fn a_slow_look_is_repeated_less_often() {
    assert_eq!(pause(Duration::from_millis(3)), PAUSE);
    assert_eq!(pause(Duration::from_secs(1)), Duration::from_secs(40));
}
