//! Forgetting flows: what is silent for longer than its state allows, and what has lost its other half.

use std::collections::HashMap;

use seaway_ebpf_abi::flow::FLOW_SENT_ON;
use seaway_ebpf_abi::{FlowKey, FlowValue};
use seaway_ebpf_logic::{dsr, flow as state};

use super::error::EbpfError;
use super::flow_table::FlowTable;

/// Deletes flows that are over. Returns how many entries there were and how many went.
pub(super) fn pass(flows: &FlowTable, now: u64) -> Result<(usize, usize), EbpfError> {
    let entries: HashMap<FlowKey, FlowValue> = flows.entries()?.into_iter().collect();
    let expired = expired(&entries, now);
    let deleted = flows.delete_all(&expired)?;
    Ok((entries.len(), deleted))
}

/// How long a silent flow is kept, in nanoseconds.
pub(super) fn timeout(protocol: u8, flow: &FlowValue) -> u64 {
    if flow.flags & FLOW_SENT_ON != 0 {
        dsr::timeout(protocol, flow)
    } else {
        state::timeout(protocol, flow.state)
    }
}

/// The keys of entries that are over. The forward entry holds the truth; a reverse entry goes with it, or, without one,
/// by its own age.
fn expired(entries: &HashMap<FlowKey, FlowValue>, now: u64) -> Vec<FlowKey> {
    let over = |key: &FlowKey, flow: &FlowValue| {
        now.saturating_sub(flow.last_seen) > timeout(key.protocol, flow)
    };
    let mut keys = Vec::new();
    for (key, flow) in entries {
        let gone = if flow.is_reverse() {
            let forward_key = flow.translated(key.protocol).swapped();
            match entries.get(&forward_key) {
                Some(forward) if forward.translated(key.protocol).swapped() == *key => {
                    over(&forward_key, forward)
                }
                // Set up this instant, or the other half was pushed out of the table.
                _ => over(key, flow),
            }
        } else {
            over(key, flow)
        };
        if gone {
            keys.push(*key);
        }
    }
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests {
    use seaway_ebpf_abi::flow::{FLOW_REVERSE, STATE_ESTABLISHED, STATE_OPENED, STATE_REPLIED};
    use seaway_ebpf_abi::{Addr, TCP, UDP};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn flow(protocol: u8, state: u8, last_seen: u64) -> [(FlowKey, FlowValue); 2] {
        let client = FlowKey {
            src: Addr::v4(1),
            dst: Addr::v4(2),
            sport: 3,
            dport: 4,
            protocol,
            pad: [0; 3],
        };
        let forward = FlowValue {
            last_seen,
            src: Addr::v4(10),
            dst: Addr::v4(20),
            sport: 30,
            dport: 40,
            state,
            ..FlowValue::default()
        };
        let reverse = FlowValue {
            last_seen: 0,
            src: Addr::v4(2),
            dst: Addr::v4(1),
            sport: 4,
            dport: 3,
            flags: FLOW_REVERSE,
            ..FlowValue::default()
        };
        let reverse_key = forward.translated(protocol).swapped();
        [(client, forward), (reverse_key, reverse)]
    }

    #[test]
    fn both_halves_go_by_the_state_of_the_forward_one() {
        let now = 1_000_000 * SECOND;
        for (protocol, state, age, gone) in [
            (UDP, STATE_OPENED, 29, false),
            (UDP, STATE_OPENED, 31, true),
            (UDP, STATE_OPENED | STATE_REPLIED, 119, false),
            (UDP, STATE_OPENED | STATE_REPLIED, 121, true),
            (
                TCP,
                STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED,
                80_000,
                false,
            ),
            (
                TCP,
                STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED,
                90_000,
                true,
            ),
            (TCP, STATE_OPENED, 121, true),
        ] {
            let entries = flow(protocol, state, now - age * SECOND)
                .into_iter()
                .collect();
            let expected = if gone { 2 } else { 0 };
            assert_eq!(
                expired(&entries, now).len(),
                expected,
                "{protocol} {state} {age}"
            );
        }
    }

    #[test]
    fn a_reverse_entry_alone_goes_by_its_own_age() {
        let now = 1_000_000 * SECOND;
        let [_, (key, mut reverse)] = flow(TCP, STATE_OPENED, now);
        reverse.last_seen = now - SECOND;
        assert!(expired(&HashMap::from([(key, reverse)]), now).is_empty());
        reverse.last_seen = now - 121 * SECOND;
        assert_eq!(expired(&HashMap::from([(key, reverse)]), now), [key]);
    }
}
