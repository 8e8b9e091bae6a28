use super::*;

#[tokio::test]
async fn the_wait_is_measured_and_the_holder_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let first = take(&path, LIMIT).await.unwrap().unwrap();
    assert!(first.waited < Duration::from_millis(100));

    let refused = take(&path, Duration::from_millis(10)).await.unwrap_err();
    let own = format!("(pid {})", std::process::id());
    assert!(refused.to_string().contains(&own), "{refused}");

    let waiting = tokio::spawn({
        let path = path.clone();
        async move { take(&path, LIMIT).await }
    });
    tokio::time::sleep(Duration::from_millis(60)).await;
    drop(first);
    let second = waiting.await.unwrap().unwrap().unwrap();
    assert!(second.waited >= Duration::from_millis(50), "{second:?}");
    assert!(second.waited < Duration::from_secs(2), "{second:?}");
}

#[tokio::test]
async fn where_nothing_can_be_locked_nothing_is() {
    let nowhere = Path::new("/nonexistent/lock");
    assert!(take(nowhere, LIMIT).await.unwrap().is_none());
}
