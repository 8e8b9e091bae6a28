//! Section "Configuration".

use serde_json::json;

use super::VERSIONS;
use crate::support::{Namespace, Node, environment};

#[tokio::test]
async fn c02_a_bad_network_name_is_refused_by_every_verb_but_version() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    for name in ["", "../x", "a/b", "-a", "a b", ".a"] {
        let mut config = node.config("1.1.0");
        config["name"] = name.into();
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let error = node
                .call(verb, "c", &pod.path(), config.clone())
                .await
                .unwrap_err();
            assert_eq!(error.0, 7, "{verb} {name:?}: {}", error.1);
        }
        node.call("VERSION", "c", "dummy", config).await.unwrap();
    }
}

#[tokio::test]
async fn c08_unknown_keys_are_no_obstacle() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.1.0");
    config["somebodysKey"] = json!({ "a": [1, null] });
    config["capabilities"] = json!({ "portMappings": true });
    config["runtimeConfig"] = json!({ "unheardOf": 3 });
    node.call("ADD", "c", &pod.path(), config.clone())
        .await
        .unwrap();
    node.call("DEL", "c", &pod.path(), config).await.unwrap();
}

#[tokio::test]
async fn c09_types_are_plain_file_names() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    for bad in ["../host-local", "a\\b", "/bin/true"] {
        let mut config = node.config("1.1.0");
        config["type"] = bad.into();
        let (code, message) = node.call("STATUS", "", "", config).await.unwrap_err();
        assert_eq!(code, 7, "{message}");
        let mut config = node.config("1.1.0");
        config["ipam"] = json!({ "type": bad });
        let (code, message) = node
            .call("ADD", "c", &pod.path(), config)
            .await
            .unwrap_err();
        assert_eq!(code, 7);
        assert!(message.contains("must be a plain file name"), "{message}");
    }
}

#[tokio::test]
async fn c11_dns_of_the_config_wins_over_that_of_ipam() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({ "type": "seaway-cni", "dns": { "nameservers": ["192.0.2.1"] } });
    let of_ipam = json!({ "nameservers": ["192.0.2.1"] });
    let full = json!({ "nameservers": ["192.0.2.9"], "domain": "d", "search": ["s"], "options": ["ndots:5"] });
    for (dns, expected) in [
        (None, &of_ipam),
        (Some(&full), &full),
        (Some(&json!({ "nameservers": [] })), &json!({})),
    ] {
        let mut config = config.clone();
        if let Some(dns) = dns {
            config["dns"] = dns.clone();
        }
        let result = node
            .call("ADD", "c", &pod.path(), config.clone())
            .await
            .unwrap();
        assert_eq!(&result["dns"], expected);
        node.call("DEL", "c", &pod.path(), config).await.unwrap();
    }
}

#[tokio::test]
async fn c12_a_pod_of_one_version_is_taken_down_in_another() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    for add in VERSIONS {
        for del in VERSIONS {
            let pod = Namespace::new("pod");
            node.call("ADD", "c", &pod.path(), node.config(add))
                .await
                .unwrap();
            node.call("DEL", "c", &pod.path(), node.config(del))
                .await
                .unwrap();
            assert_eq!(node.pod_links().await, [""; 0], "{add} {del}");
        }
    }
    assert_eq!(node.leases().await.len(), 0);
    // A config without a version means 0.1.0.
    let mut config = node.config("0.1.0");
    config.as_object_mut().unwrap().remove("cniVersion");
    let pod = Namespace::new("pod");
    let env = environment("ADD", "c", "");
    assert_eq!(env[0].1, "ADD");
    let result = node.call("ADD", "c", &pod.path(), config).await.unwrap();
    assert_eq!(result["cniVersion"], "0.1.0");
}
