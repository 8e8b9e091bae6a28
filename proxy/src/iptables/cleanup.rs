//! Everything of ours out of the kernel, without an image of it.

use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Delta, Family};

use super::placement::VARIANTS;
use super::rule::Table;
use super::tool::{Locking, Tool};
use super::transaction::Transaction;
use super::{parse, routes, watch};
use crate::dataplane::ApplyError;

/// Every program of these families, whether installed or not. The nft variant comes first: where it keeps the nat rules
/// of a legacy node they go before the filter rules that act on their marks.
pub(super) fn every_tool(families: impl Iterator<Item = Family>) -> impl Iterator<Item = Tool> {
    families.flat_map(|family| VARIANTS.map(|variant| Tool { family, variant }))
}

/// Removes every chain of ours and every jump to one from some tables, then looks again.
pub(super) async fn remove_from(
    tool: Tool,
    tables: &[Table],
) -> Result<Option<String>, ApplyError> {
    let text = match tool.save_if_installed().await {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        // The program is there and what it speaks to is not: nor is any rule.
        Err(_) if tool.variant == IptablesVariant::NfTables && !watch::has_nf_tables() => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut delta = Delta::new();
    delta.replace_observed(parse::saved_in(&text, tool.family, tables));
    if delta.is_in_sync() {
        return Ok(None);
    }
    let chains = delta.iter_observed().filter(|(id, _)| id.name.is_ours());
    let chains = chains.count();
    let transaction = Transaction::new(tool.family, &delta);
    tool.restore(transaction.as_str(), Locking::Its).await?;
    let left = parse::saved_in(&tool.save_tables(tables).await?, tool.family, tables);
    if let Some((id, _)) = left.first_key_value() {
        return Err(ApplyError::Failed {
            what: format!("cleanup of {}", tool.name()),
            reason: format!(
                "{} chains are left or came back, {} of table {} among them; is another proxy running?",
                left.len(),
                id.name,
                id.table.as_str()
            ),
        });
    }
    let jumps = transaction.deletions - chains;
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
