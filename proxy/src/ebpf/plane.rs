//! The data plane: tables, programs and attachments as one, in step with the node.

use std::sync::Arc;

use seaway_cluster::direct::Answering;
use seaway_ebpf_abi::Verdict;
use seaway_kernel::{NetNs, Netlink};
use seaway_model::{Change, Desired};
use tokio::sync::watch;

use super::config::EbpfConfig;
use super::dump::{self, Held};
use super::error::EbpfError;
use super::image::Image;
use super::node::{self, NodeView};
use super::observe::{self, Observed, Shared};
use super::pending::pending;
use super::plan::{self, EbpfPlan};
use super::pods::{FastPath, Pods};
use super::tables::Tables;
use super::{bpffs, cleanup, features, filters};
use crate::changes::Changes;
use crate::dataplane::{ApplyError, Dataplane, Report};
use crate::flows::Names;
use apply::Active;
use follow::Following;

mod apply;
mod follow;

/// Services by socket hooks and tc programs.
///
/// Everything happens in the network namespace that the thread which called [`EbpfDataplane::new`] was in. Dropping the
/// value changes nothing in the kernel: traffic goes on, and the next one adopts what is pinned.
pub struct EbpfDataplane {
    pub(super) settings: EbpfConfig,
    pub(super) netns: NetNs,
    pub(super) image: Image,
    shared: Arc<Shared>,
    pub(super) view: NodeView,
    /// What begins is left to rules.
    pub(super) handover: bool,
    /// The programs have been told of the node as `view` has it.
    told: bool,
    /// Pods by their addresses.
    pods: Pods,
    /// Whether packets between them go past the stack.
    pub(super) fast: FastPath,
    /// What was not loaded or attached when the kernel was last looked at.
    pending: Vec<String>,
    names: Names,
    active: Option<Active>,
    following: Option<Following>,
    /// Which nodes answer clients themselves.
    answering: watch::Receiver<Option<Answering>>,
}

impl EbpfDataplane {
    /// A data plane for the network namespace of the calling thread. Touches nothing yet.
    ///
    /// # Errors
    ///
    /// If that namespace cannot be opened.
    pub fn new(settings: EbpfConfig) -> Result<Self, EbpfError> {
        Ok(Self {
            shared: Arc::new(Shared::new(settings.pin_dir())),
            settings,
            netns: NetNs::current()?,
            image: Image::default(),
            view: NodeView::default(),
            handover: false,
            told: false,
            pods: Pods::default(),
            fast: FastPath::default(),
            pending: Vec::new(),
            names: Names::default(),
            active: None,
            following: None,
            answering: watch::channel(None).1,
        })
    }

    /// What the programs did so far, summed over CPUs; empty if nothing is loaded.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(Verdict, u64)>, EbpfError> {
        observe::counters(&self.settings.pin_dir())
    }

    /// Shows what is counted to the metrics, for as long as this value lives.
    #[must_use]
    pub fn observed_by(self, observed: &Observed) -> Self {
        observed.show(&self.shared);
        self
    }

    /// Sends clients' packets on, as they are, to nodes that say so (`--forwarding dsr`). Without this, or until all have been
    /// listed, what was known of them before holds.
    #[must_use]
    pub fn hearing(mut self, answering: watch::Receiver<Option<Answering>>) -> Self {
        self.answering = answering;
        self
    }

    async fn look(&mut self) -> Result<(), EbpfError> {
        if self.active.is_none() {
            features::check()?;
            bpffs::check_cgroup(&self.settings.cgroup_root)?;
        }
        // Subscribe first, list then: what changes in between is seen twice rather than never.
        let following = match self.following.take() {
            Some(following) => following,
            None => Following::new(&self.netns)?,
        };
        let following = self.following.insert(following);
        following.begin();
        let view = node::read(&following.netlink, &self.settings.detect_local).await?;
        let before = std::mem::replace(&mut self.view, view);
        self.tell_of_links(&before);
        self.pods.begin(&self.view.links);
        self.told = false;
        self.image = match Tables::open(&self.settings.pin_dir())? {
            Some(tables) => tables.image()?,
            None => Image::default(),
        };
        self.pending = pending(&self.settings, &self.view, &filters::attached(&self.netns)?)?;
        Ok(())
    }

    /// Shows in its dump to which Services frontends and flows belong.
    #[must_use]
    pub fn naming(mut self, desired: &Desired) -> Self {
        self.names = Names::of(desired);
        self
    }

    /// What has to be done before map entries have any effect, in words.
    fn activation(&self) -> Vec<String> {
        match self.active {
            Some(_) => Vec::new(),
            None => self.pending.clone(),
        }
    }

    /// What is attached is another's from now on: the next plan begins from the pins.
    pub(super) fn let_go(&mut self) {
        self.active = None;
    }

    /// Nothing is loaded any more.
    pub(super) fn reset(&mut self) {
        self.active = None;
        self.image = Image::default();
        self.shared.forget();
        self.handover = false;
    }

    /// Compares the kernel with what is believed to be there.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn difference(&self) -> Result<Option<String>, EbpfError> {
        self.audit()
    }
}

impl Dataplane for EbpfDataplane {
    type Plan = EbpfPlan;
    type Held = Held;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        Ok(self.look().await?)
    }

    fn plan(&self, desired: &Desired, change: &Change) -> EbpfPlan {
        let mut plan = plan::plan(
            &self.image,
            &self.shared.owners(),
            desired,
            change,
            (&self.settings.detect_local, self.settings.maglev_seed),
        );
        plan.activation = self.activation();
        plan
    }

    fn changes(&self, plan: &EbpfPlan) -> Changes {
        plan.changes()
    }

    async fn apply(&mut self, plan: EbpfPlan) -> Result<Report, ApplyError> {
        Ok(self.execute(plan)?)
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        Ok(self.attend().await?)
    }

    async fn held(&mut self) -> Result<Held, ApplyError> {
        Ok(dump::dump(&self.settings, &self.netns, &self.names)?)
    }

    async fn cleanup(&mut self) -> Result<Vec<String>, ApplyError> {
        self.active = None;
        let netlink = Netlink::in_namespace(&self.netns).map_err(EbpfError::from)?;
        // Filters are found by the calling thread's namespace.
        let lines = cleanup::cleanup(&self.settings, &netlink, &self.netns).await?;
        self.reset();
        Ok(lines)
    }
}
