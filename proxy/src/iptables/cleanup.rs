//! Everything of ours out of the kernel, without an image of it.

use seaway_kernel::Nftables;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Delta, Family};

use super::names;
use super::placement::VARIANTS;
use super::rule::{ChainId, ChainName, CtState, Match, Rule, Rules, Table, Target, is_ours};
use super::tool::{Locking, Tool};
use super::transaction::Transaction;
use super::{parse, routes, watch};
use crate::dataplane::ApplyError;

/// Every program of these families, whether installed or not. The nft variant comes first: where it keeps the nat rules
/// of a legacy node they go before the filter rules that act on their marks.
pub(super) fn every_tool(families: impl Iterator<Item = Family>) -> impl Iterator<Item = Tool> {
    families.flat_map(|family| VARIANTS.map(|variant| Tool { family, variant }))
}

/// What stays for flows that began with our rules. The kernel hooks connection tracking into a network namespace for as long
/// as any rule asks for it (`nf_ct_netns_get`), whether a packet comes by or not.
pub(super) fn keep_flows() -> (ChainId, Rules) {
    let id = ChainId::nat(&ChainName::new(names::KEEP_FLOWS));
    let rule = Rule::new([Match::Conntrack(CtState::Dnat)], Target::Return);
    (id, Rules::from(vec![rule]))
}

/// Without its program (perhaps only the `PATH` of this process lacks it) the nft variant's rules of ours cannot go, but they can
/// be seen.
fn out_of_reach(tool: Tool) -> Result<(), ApplyError> {
    if tool.variant != IptablesVariant::NfTables || !watch::has_nf_tables() {
        return Ok(());
    }
    let failed = |reason| ApplyError::Failed {
        what: format!("cleanup of {}", tool.name()),
        reason,
    };
    let chains = Nftables::open().and_then(|mut nft| nft.chains(tool.family == Family::V6));
    let chains = chains.map_err(|error| failed(error.to_string()))?;
    let mut ours = chains.iter().filter(|(_, chain)| is_ours(chain));
    match ours.next() {
        None => Ok(()),
        Some((table, chain)) => Err(failed(format!(
            "the kernel has chain {chain} of table {table} and {} more of ours, and {} is not installed, or not in PATH ({})",
            ours.count(),
            tool.program("restore"),
            std::env::var("PATH").unwrap_or_default(),
        ))),
    }
}

/// Removes every chain of ours and every jump to one from some tables, but what is to stay or come, then looks again.
pub(super) async fn remove_from(
    tool: Tool,
    tables: &[Table],
    kept: Option<&(ChainId, Rules)>,
) -> Result<Option<String>, ApplyError> {
    let text = match tool.save_if_installed().await {
        Ok(Some(text)) => text,
        Ok(None) => return out_of_reach(tool).map(|()| None),
        // The program is there and what it speaks to is not: nor is any rule.
        Err(_) if tool.variant == IptablesVariant::NfTables && !watch::has_nf_tables() => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut delta = Delta::new();
    delta.replace_observed(parse::saved_in(&text, tool.family, tables));
    delta.replace_desired(kept.cloned());
    if delta.is_in_sync() {
        return Ok(None);
    }
    let goes = |id: &ChainId| id.name.is_ours() && kept.is_none_or(|(kept, _)| kept != id);
    let chains = delta.iter_observed().filter(|(id, _)| goes(id));
    let chains = chains.count();
    let transaction = Transaction::new(tool.family, &delta);
    tool.restore(transaction.as_str(), Locking::Its).await?;
    let left = parse::saved_in(&tool.save_tables(tables).await?, tool.family, tables);
    let mut left = left
        .keys()
        .filter(|id| kept.is_none_or(|(kept, _)| kept != *id));
    if let Some(id) = left.next() {
        return Err(ApplyError::Failed {
            what: format!("cleanup of {}", tool.name()),
            reason: format!(
                "{} chains are left or came back, {} of table {} among them; is another proxy running?",
                left.count() + 1,
                id.name,
                id.table.as_str()
            ),
        });
    }
    let jumps = transaction.deletions.saturating_sub(chains);
    Ok(Some(format!(
        "{}: {chains} chains and {jumps} jumps to them",
        tool.name()
    )))
}

/// Removes the routes of refused frontends.
pub(super) async fn remove_routes() -> Result<Option<String>, ApplyError> {
    let removed = routes::remove().await.map_err(|error| ApplyError::Failed {
        what: "routes of Services".into(),
        reason: error.to_string(),
    })?;
    Ok((removed > 0).then(|| format!("{removed} routes of Services")))
}
