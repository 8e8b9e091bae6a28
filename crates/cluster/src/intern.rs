//! One allocation for each distinct name.

use std::collections::HashSet;
use std::sync::Arc;

/// A pool of shared strings. 100,000 endpoints mention a few hundred node names; without it each mention
/// would be an allocation of its own.
#[derive(Debug, Default)]
pub struct Interner {
    pool: HashSet<Arc<str>>,
    /// Size at which names that nobody uses any more are dropped.
    sweep_at: usize,
}

/// Below this size sweeping is not worth the walk.
const SWEEP_MIN: usize = 1024;

impl Interner {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(found) = self.pool.get(text) {
            return found.clone();
        }
        if self.pool.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.pool.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.pool.len() * 2;
        }
        let name: Arc<str> = text.into();
        self.pool.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_share_one_allocation() {
        let mut names = Interner::default();
        let a = names.get("node-1");
        assert!(Arc::ptr_eq(&a, &names.get("node-1")));
        assert!(!Arc::ptr_eq(&a, &names.get("node-2")));
    }

    #[test]
    fn unused_names_do_not_pile_up() {
        let mut names = Interner::default();
        let kept = names.get("kept");
        for i in 0..100_000 {
            names.get(&format!("pod-{i}"));
        }
        assert!(names.pool.len() <= SWEEP_MIN + 1, "{}", names.pool.len());
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
    }
}
