use super::*;

#[test]
fn bodies_carry_only_what_is_known() {
    let plain = Status::bad_request("no").body();
    assert_eq!(plain["reason"], "BadRequest");
    assert!(plain.get("details").is_none());
    assert_eq!(
        deleted("apps", "deployments", "web", "u1")["details"]["group"],
        "apps"
    );
    assert!(
        deleted("", "pods", "web", "u1")["details"]
            .get("group")
            .is_none()
    );
}

#[test]
fn a_future_revision_asks_to_come_back() {
    let status = Status::too_large_resource_version(9, 5);
    assert_eq!(status.retry_after(), Some(1));
    assert_eq!(
        status.message,
        "Timeout: Too large resource version: 9, current: 5"
    );
    assert_eq!(
        status.body()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[test]
fn an_expired_list_hands_back_a_token() {
    let status = Status::expired_continue(Some("abc".to_owned()));
    assert_eq!(status.code, 410);
    assert_eq!(status.body()["metadata"]["continue"], "abc");
}
