//! What should be, what is, and what would have to change for the one to become the other.

use std::fmt;

use seaway_model::{Desired, Frontend, PortRule, ServiceRules, TrafficPolicy};
use serde::{Serialize, Serializer};

use super::Planned;

/// Of one data plane; without what should be where only the kernel is looked at.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dumped<'a, H> {
    pub(super) desired: Option<Wanted<'a>>,
    pub(super) actual: H,
    pub(super) to_do: Option<Planned>,
}

/// The desired state, the same in every mode.
pub(super) struct Wanted<'a>(pub(super) &'a Desired);

/// A list of Services.
impl Serialize for Wanted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct One<'a> {
            service: String,
            #[serde(flatten)]
            rules: &'a ServiceRules,
        }
        serializer.collect_seq(self.0.services.iter().map(|(key, rules)| One {
            service: key.to_string(),
            rules,
        }))
    }
}

impl<H: fmt::Display> fmt::Display for Dumped<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.desired, &self.to_do) {
            (Some(desired), Some(to_do)) => write!(
                f,
                "== desired\n{desired}== actual\n{}== to do\n{}",
                self.actual, to_do.text
            ),
            _ => write!(f, "{}", self.actual),
        }
    }
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, rules) in &self.0.services {
            writeln!(f, "{key}")?;
            for rule in &rules.ports {
                f.write_str(&port_text(rule))?;
            }
            if let Some(check) = rules.health_check {
                let (port, here) = (check.port, check.local_ready);
                writeln!(f, "  health check port {port}: {here} endpoints here")?;
            }
        }
        Ok(())
    }
}

fn port_text(rule: &PortRule) -> String {
    let list = |items: Vec<String>| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(" ")
        }
    };
    let backends = |policy| {
        let backends = rule.backends(policy).iter();
        list(backends.map(ToString::to_string).collect())
    };
    let frontends = list(rule.frontends.iter().map(Frontend::to_string).collect());
    let mut text = format!("  {frontends} -> {}", backends(TrafficPolicy::Cluster));
    if rule.uses_local() {
        text.push_str(&format!(" (local: {})", backends(TrafficPolicy::Local)));
    }
    if let Some(timeout) = rule.affinity {
        text.push_str(&format!(", client kept {} s", timeout.as_secs()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use seaway_model::{
        Algorithm, Backend, Family, FrontendAddr, FrontendKind, HealthCheck, ObjectKey, Protocol,
    };

    use super::*;
    use crate::changes::Changes;

    fn desired() -> Desired {
        let frontend = |addr, port, kind| Frontend {
            addr,
            port,
            protocol: Protocol::Tcp,
            kind,
        };
        let rule = PortRule {
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
            frontends: vec![
                frontend(
                    FrontendAddr::Ip("10.96.0.10".parse().unwrap()),
                    80,
                    FrontendKind::ClusterIp,
                ),
                frontend(
                    FrontendAddr::AnyNodeAddress(Family::V4),
                    30080,
                    FrontendKind::NodePort,
                ),
            ],
            cluster: vec![Backend {
                addr: "10.244.1.2:8080".parse().unwrap(),
                local: true,
            }],
            local: Vec::new(),
            lingering: Vec::new(),
            any_endpoints: true,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Local,
            affinity: Some(Duration::from_secs(30)),
            source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        };
        let rules = ServiceRules {
            ports: vec![rule],
            health_check: Some(HealthCheck {
                port: 32001,
                local_ready: 1,
            }),
            algorithm: Algorithm::Maglev,
        };
        Desired {
            services: [(ObjectKey::new("default", "web"), rules)].into(),
        }
    }

    #[test]
    fn for_people_and_for_programs() {
        let desired = desired();
        let both = Dumped {
            desired: Some(Wanted(&desired)),
            actual: "what is there\n".to_owned(),
            to_do: Some(Planned {
                text: "what to do\n".to_owned(),
                changes: Changes::default(),
            }),
        };
        expect![[r#"
            == desired
            default/web
              10.96.0.10:80/tcp node:30080/tcp -> 10.244.1.2:8080 (local: none), client kept 30 s
              health check port 32001: 1 endpoints here
            == actual
            what is there
            == to do
            what to do
        "#]]
        .assert_eq(&both.to_string());
        expect![[r#"
            {
              "desired": [
                {
                  "service": "default/web",
                  "ports": [
                    {
                      "portName": "http",
                      "protocol": "tcp",
                      "family": "IPv4",
                      "frontends": [
                        {
                          "address": "10.96.0.10",
                          "port": 80,
                          "protocol": "tcp",
                          "kind": "ClusterIP"
                        },
                        {
                          "address": null,
                          "port": 30080,
                          "protocol": "tcp",
                          "kind": "NodePort"
                        }
                      ],
                      "cluster": [
                        {
                          "address": "10.244.1.2:8080",
                          "local": true
                        }
                      ],
                      "local": [],
                      "lingering": [],
                      "anyEndpoints": true,
                      "internalPolicy": "Cluster",
                      "externalPolicy": "Local",
                      "affinitySeconds": 30,
                      "sourceRanges": [
                        "203.0.113.0/24"
                      ]
                    }
                  ],
                  "healthCheck": {
                    "port": 32001,
                    "localReady": 1
                  },
                  "algorithm": "maglev"
                }
              ],
              "actual": "what is there\n",
              "toDo": {
                "inSync": true,
                "removed": 0,
                "added": 0,
                "steps": [],
                "changes": [],
                "notices": []
              }
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&both).unwrap());
        let actual = Dumped {
            desired: None,
            to_do: None,
            ..both
        };
        assert_eq!(actual.to_string(), "what is there\n");
    }
}
