//! The ledger against a model of it, by any sequence of calls: also over a reboot, and with remains of a kill.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::tests::lease;
use super::*;

/// What is done to the ledger.
#[derive(Debug, Clone)]
enum Step {
    Allocate {
        owner: u8,
        requested: Option<u8>,
    },
    Release {
        owner: u8,
    },
    /// What a kill at the worst moment leaves: half of a file, and the mark of the last use beside a new one.
    Litter {
        host: u8,
    },
    /// Somebody writes over a file.
    Corrupt {
        owner: u8,
    },
    Reboot,
    Wait {
        seconds: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let owner = 0u8..12;
    prop_oneof![
        6 => (owner.clone(), prop::option::weighted(0.3, 0u8..16))
            .prop_map(|(owner, requested)| Step::Allocate { owner, requested }),
        4 => owner.clone().prop_map(|owner| Step::Release { owner }),
        1 => (0u8..16).prop_map(|host| Step::Litter { host }),
        1 => owner.prop_map(|owner| Step::Corrupt { owner }),
        1 => Just(Step::Reboot),
        3 => (0u16..200).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// What must be so: who has which address, and when others were freed.
#[derive(Debug, Default)]
struct Model {
    owned: BTreeMap<u8, Vec<IpAddr>>,
    freed: BTreeMap<IpAddr, Duration>,
}

impl Model {
    fn owner_of(&self, address: IpAddr) -> Option<u8> {
        self.owned
            .iter()
            .find(|(_, list)| list.contains(&address))
            .map(|(owner, _)| *owner)
    }

    fn in_use(&self) -> Vec<IpAddr> {
        let mut all: Vec<_> = self.owned.values().flatten().copied().collect();
        all.sort();
        all
    }
}

fn lists() -> Vec<Vec<Range>> {
    ["10.1.0.0/29", "fd00::/125"]
        .map(|text| vec![Range::of_node(text.parse::<IpNetwork>().unwrap()).unwrap()])
        .to_vec()
}

fn host(number: u8) -> IpAddr {
    [10, 1, 0, number].into()
}

fn allocated(
    model: &mut Model,
    answer: Result<Vec<IpAddr>, LedgerError>,
    owner: u8,
    requested: Option<IpAddr>,
    now: Duration,
) -> Result<(), TestCaseError> {
    let lists = lists();
    match answer {
        Ok(list) => {
            prop_assert!(!model.owned.contains_key(&owner));
            prop_assert_eq!(list.len(), lists.len());
            for (address, ranges) in list.iter().zip(&lists) {
                prop_assert!(ranges[0].contains(*address));
                prop_assert_eq!(
                    model.owner_of(*address),
                    None,
                    "{} was given twice",
                    address
                );
                let waits = model
                    .freed
                    .remove(address)
                    .is_some_and(|at| now - at < pool::QUARANTINE);
                let unknown = ranges[0].behind(None).filter(|ip| {
                    model.owner_of(*ip).is_none() && !model.freed.contains_key(ip) && ip != address
                });
                prop_assert!(
                    !waits || requested == Some(*address) || unknown.count() == 0,
                    "{address} was given out while others were free for longer"
                );
            }
            if let Some(requested) = requested {
                prop_assert!(list.contains(&requested));
            }
            model.owned.insert(owner, list);
        }
        Err(LedgerError::AlreadyOwned { .. }) => {
            prop_assert!(model.owned.contains_key(&owner));
        }
        Err(LedgerError::InUse { address, .. }) => {
            prop_assert!(model.owner_of(address).is_some());
        }
        Err(LedgerError::OutOfRange { address, .. }) => {
            prop_assert!(!lists[0][0].contains(address));
        }
        Err(LedgerError::Exhausted { .. }) => {
            let full = |ranges: &Vec<Range>| {
                ranges[0]
                    .behind(None)
                    .all(|ip| model.owner_of(ip).is_some())
            };
            prop_assert!(lists.iter().any(full));
        }
        Err(other) => prop_assert!(false, "{}", other),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_ledger_is_its_model(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let (mut boot, mut now) = (0, Duration::from_secs(1000));
        for step in steps {
            let ledger = Ledger::open_for_boot(dir.path(), "net", &tests::boot(boot)).unwrap();
            match step {
                Step::Allocate { owner, requested } => {
                    let requested = requested.map(host);
                    let asked: Vec<_> = requested.into_iter().collect();
                    let answer = ledger.allocate(&lease(&owner.to_string()), &lists(), &asked, now);
                    allocated(&mut model, answer, owner, requested, now)?;
                }
                Step::Release { owner } => {
                    let mut freed = ledger.release(&lease(&owner.to_string()).owner, now).unwrap();
                    let mut expected = model.owned.remove(&owner).unwrap_or_default();
                    freed.sort();
                    expected.sort();
                    prop_assert_eq!(&freed, &expected);
                    model.freed.extend(freed.into_iter().map(|address| (address, now)));
                }
                Step::Litter { host: number } => {
                    fs::write(ledger.directory.join(TEMPORARY), "{").unwrap();
                    let address = host(number);
                    if model.owner_of(address).is_some() {
                        fs::write(ledger.path(&Entry::Freed { address, at: now }), "").unwrap();
                    }
                }
                Step::Corrupt { owner } => {
                    for address in model.owned.get(&owner).into_iter().flatten() {
                        let owner = lease(&owner.to_string()).owner;
                        fs::write(ledger.path(&Entry::of(*address, &owner)), "{").unwrap();
                    }
                }
                Step::Reboot => {
                    boot += 1;
                    now = Duration::from_secs(1000);
                    model = Model::default();
                    continue;
                }
                Step::Wait { seconds } => now += Duration::from_secs(seconds.into()),
            }
            let entries = ledger.entries().unwrap();
            let mut used: Vec<_> = entries
                .iter()
                .filter(|entry| matches!(entry, Entry::InUse { .. }))
                .map(Entry::address)
                .collect();
            used.sort();
            prop_assert_eq!(used, model.in_use());
        }
    }
}
