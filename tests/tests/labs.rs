//! The lab itself: side by side, in the way of each other, half finished, dead; and the machine as it was before.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use seaway_lab::{Daemon, Lab, LabConfig, LabError, LabName, Mode, down};
use seaway_tests::{fixture, require, trace};

fn one_node(name: &str) -> Result<LabConfig> {
    Ok(LabConfig::new(name.parse()?)?.nodes(1, Mode::Iptables))
}

fn names() -> [String; 2] {
    let pid = std::process::id();
    [format!("a{pid}"), format!("b{pid}")]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_labs_stand_side_by_side_and_leave_nothing() -> Result<()> {
    if !require::met(require::LAB) {
        return Ok(());
    }
    let before = trace::of_machine().await?;
    let [first, second] = names();
    let one = Lab::up_for_test(one_node(&first)?).await?;
    let two = Lab::up_for_test(one_node(&second)?).await?;
    for lab in [&one, &two] {
        let nodes = lab.kubectl_ok(["get", "nodes", "-o", "name"]).await?;
        ensure!(nodes.trim() == "node/n1", "{nodes}");
    }
    one.down().await?;
    two.kubectl_ok(["get", "nodes"]).await?;
    two.down().await?;
    let after = trace::of_machine().await?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_or_unknown_is_refused_with_the_way_out() -> Result<()> {
    if !require::met(require::LAB) {
        return Ok(());
    }
    let [name, _] = names();
    let lab = Lab::up_for_test(one_node(&name)?).await?;
    let Err(error) = Lab::up(one_node(&name)?).await else {
        anyhow::bail!("a second lab {name} came up");
    };
    ensure!(matches!(error, LabError::Exists { .. }), "{error}");
    let text = error.to_string();
    ensure!(
        text.contains(&format!("seaway lab down --name {name}")),
        "{text}"
    );
    for (place, said) in [
        (lab.node("n7"), "there is no node n7: 1 nodes"),
        (
            lab.pod("nobody").await,
            "there is no pod default/nobody; `kubectl get pods -A`",
        ),
    ] {
        let text = place.err().map(|error| error.to_string());
        ensure!(
            text.as_ref().is_some_and(|text| text.starts_with(said)),
            "{text:?}"
        );
    }
    // The refusal has not harmed the first.
    lab.kubectl_ok(["get", "nodes"]).await?;
    lab.down().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_whose_every_process_was_killed_can_be_taken_away() -> Result<()> {
    if !require::met(require::LAB) {
        return Ok(());
    }
    let before = trace::of_machine().await?;
    let [name, _] = names();
    let lab = Lab::up_for_test(one_node(&name)?).await?;
    let daemons = Daemon::of_node("n1").into_iter().chain([Daemon::Server]);
    for daemon in daemons {
        lab.kill(&daemon).await?;
    }
    let lab_name: LabName = name.parse()?;
    ensure!(
        down::labs()?.contains(&lab_name),
        "the dead lab is not listed"
    );
    lab.down().await?;
    let after = trace::of_machine().await?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_was_dropped_half_way_up_can_be_taken_away() -> Result<()> {
    if !require::met(require::LAB) {
        return Ok(());
    }
    let before = trace::of_machine().await?;
    let [name, _] = names();
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let config = one_node(&name)?.progress(move |line| {
        if line.starts_with("control plane")
            && let Ok(mut tell) = tell.lock()
            && let Some(tell) = tell.take()
        {
            // The receiver goes away with the test only.
            let _ = tell.send(());
        }
    });
    tokio::select! {
        lab = Lab::up(config) => anyhow::bail!("it came up: {}", lab?.name()),
        _ = told => {}
    }
    let lab_name: LabName = name.parse()?;
    let found = down::down(&lab_name)?;
    ensure!(!found.is_empty(), "nothing was there");
    ensure!(
        down::what_is_there(&lab_name)?.is_empty(),
        "something is left"
    );
    let after = trace::of_machine().await?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_nodes_do_not_collide() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        let path = "jsonpath={.items[*].spec.podCIDR}";
        let cidrs = lab.kubectl_ok(["get", "nodes", "-o", path]).await?;
        let distinct: BTreeSet<&str> = cidrs.split(' ').collect();
        ensure!(distinct.len() == 3, "{cidrs}");
        Ok(())
    })
    .await;
}
