use super::*;

#[test]
fn an_error_shows_the_line_it_is_about() {
    let input = "*nat\n-A X -j NONE\nCOMMIT\n";
    assert_eq!(
        point_at_line("iptables-restore: line 2 failed", input),
        "iptables-restore: line 2 failed — that line is: -A X -j NONE"
    );
    assert_eq!(
        point_at_line("Error occurred at line: 2\nTry help", input),
        "Error occurred at line: 2\nTry help — that line is: -A X -j NONE"
    );
    assert_eq!(point_at_line("line 99 failed", input), "line 99 failed");
    assert_eq!(point_at_line("no lock", input), "no lock");
}
