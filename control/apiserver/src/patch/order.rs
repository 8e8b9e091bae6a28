//! `$setElementOrder`: the client says in which order it has the items it knows; items that only the server knows keep
//! their place relative to the others.

use serde_json::Value;

/// `normalizeElementOrder`: items named in `order` in that order, the others woven in by their old positions.
pub(super) fn arrange(
    items: &[Value],
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let position = |list: &[Value], item: &Value| {
        let wanted = identity(item);
        list.iter().position(|other| identity(other) == wanted)
    };
    let (mut known, mut server_only): (Vec<&Value>, Vec<&Value>) = items
        .iter()
        .partition(|item| position(order, item).is_some());
    known.sort_by_key(|item| position(order, item));
    server_only.sort_by_key(|item| position(before, item));
    let mut arranged = Vec::with_capacity(items.len());
    let (mut left, mut right) = (
        server_only.into_iter().peekable(),
        known.into_iter().peekable(),
    );
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => return arranged,
            (Some(_), None) => left.next(),
            (None, Some(_)) => right.next(),
            (Some(l), Some(r)) => match (position(before, l), position(before, r)) {
                (Some(l), Some(r)) if l < r => left.next(),
                _ => right.next(),
            },
        };
        arranged.extend(next.cloned());
    }
}
