//! Carries plans out: loads the programs, fills their tables, attaches them, and tells them of the node.

use std::time::Instant;

use seaway_ebpf_abi::config::CONFIG_HANDOVER;
use seaway_kernel::NetNs;

use super::EbpfDataplane;
use crate::dataplane::Report;
use crate::ebpf::environment::has_tcx;
use crate::ebpf::error::EbpfError;
use crate::ebpf::links::{Attachments, attach_order};
use crate::ebpf::node::{self, NodeLink};
use crate::ebpf::objects::Programs;
use crate::ebpf::plan::EbpfPlan;
use crate::ebpf::room::Room;
use crate::ebpf::tables::Tables;
use crate::ebpf::{bpffs, cleanup, pods, tunnels, upgrade};

/// What exists once the programs are in force.
pub(super) struct Active {
    programs: Programs,
    pub(super) attachments: Attachments,
    pub(super) tables: Tables,
    /// Tables that the programs write which are still at work, if larger ones are to take their place.
    outgrown: Option<Tables>,
}

impl Active {
    /// Attaches to a link what its role asks for.
    pub(super) fn attach(
        &mut self,
        netns: &NetNs,
        index: u32,
        link: &NodeLink,
    ) -> Result<(), EbpfError> {
        let _inside = netns.enter()?;
        self.attachments.attach(&mut self.programs, index, link)
    }
}

impl EbpfDataplane {
    pub(super) fn execute(&mut self, plan: EbpfPlan) -> Result<Report, EbpfError> {
        let started = Instant::now();
        for notice in &plan.notices {
            tracing::warn!("{notice}");
        }
        let room = Room::for_plan(&self.image, &plan.ops);
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.tables.lack(&room))
        {
            // Other programs have to be put behind the links, as after a start.
            self.active = None;
        }
        let first = self.active.is_none();
        if first {
            self.load(&room)?;
        }
        // Not for a change of a Service, which says nothing about the node.
        let mut node_writes = match first || !self.told {
            true => self.write_node()?,
            false => 0,
        };
        if first {
            node_writes += self.pods.write(&self.settings.pin_dir())?;
        }
        let Some(active) = &mut self.active else {
            return Ok(Report::default());
        };
        let mut report = active.tables.execute(&plan.ops, &mut self.image)?;
        if first {
            // Once more: writing all Services takes a while, in which flows go on beginning in what we take over.
            upgrade::carry(&self.settings, &active.tables)?;
            if let Some(former) = &active.outgrown {
                active.tables.take_in(former)?;
            }
            let attached = active
                .attachments
                .attach_cgroup(&active.programs, &self.settings.cgroup_root)
                .and_then(|()| self.attach_links())
                .and_then(|()| self.inherit())
                .and_then(|()| cleanup::supersede(&self.settings));
            if let Err(error) = attached {
                // The next attempt starts from the pins again.
                self.active = None;
                return Err(error);
            }
        }
        self.shared.update(plan.owners);
        report.operations += node_writes;
        report.took = started.elapsed();
        Ok(report)
    }

    /// Loads the programs, with tables that have room for that.
    fn load(&mut self, room: &Room) -> Result<(), EbpfError> {
        let dir = self.settings.pin_dir();
        bpffs::create_dir(&self.settings.link_dir())?;
        let mut outgrown = None;
        if let Some(tables) = Tables::open(&dir)? {
            tables.enlarge(&dir, room)?;
            if tables.outgrow(&dir, &self.settings.sizes)? {
                outgrown = Some(tables);
            }
        }
        let programs = Programs::load(&dir, room.sizes(self.settings.sizes))?;
        let tables = Tables::open(&dir)?.ok_or_else(|| EbpfError::Load {
            object: "the maps".to_owned(),
            reason: format!("not all of them are pinned in {}", dir.display()),
        })?;
        if let Some(carried) = upgrade::carry(&self.settings, &tables)? {
            upgrade::inherit_links(&self.settings)?;
            tracing::info!(%carried, "taking over from a build with the layout before ours");
        }
        let tcx = match self.settings.tcx {
            Some(tcx) => tcx,
            None => has_tcx(),
        };
        self.active = Some(Active {
            programs,
            attachments: Attachments::new(self.settings.link_dir(), tcx, self.settings.xdp),
            tables,
            outgrown,
        });
        Ok(())
    }

    /// Takes over what came into the tables of programs before ours until their links had ours: of the layout before, or of
    /// smaller tables.
    fn inherit(&mut self) -> Result<(), EbpfError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        upgrade::carry(&self.settings, &active.tables)?;
        if let Some(former) = active.outgrown.take() {
            let entries = active.tables.take_in(&former)?;
            tracing::info!(entries, "took over what came into smaller tables meanwhile");
        }
        Ok(())
    }

    /// Tells the programs of the node as it is now.
    pub(super) fn write_node(&mut self) -> Result<usize, EbpfError> {
        let Some(active) = &self.active else {
            return Ok(0);
        };
        let cookie = self.netns.cookie()?;
        let ports = {
            let _inside = self.netns.enter()?;
            node::socket_ports()?
        };
        let mut config = node::config(&self.view, &self.settings, cookie, ports);
        if self.handover {
            config.flags |= CONFIG_HANDOVER;
        }
        let there = active.tables.read_config()?;
        config.flags |= pods::flags(&there, self.settings.pod_fast_path);
        let addresses = node::addresses(&self.view, &self.settings);
        let answering = self.answering.borrow();
        let dir = self.settings.pin_dir();
        let tunnels = tunnels::write(&dir, &self.view.tunnels, answering.as_ref())?;
        let writes = tunnels + active.tables.write_node(&config, &addresses)?;
        self.told = true;
        Ok(writes)
    }

    /// Attaches to every link that should have programs, and lets go of the others.
    pub(super) fn attach_links(&mut self) -> Result<(), EbpfError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        active.attachments.retain(&self.view.links)?;
        for (index, link) in attach_order(&self.view.links) {
            if active.attachments.attached().contains_key(&index) {
                continue;
            }
            match active.attach(&self.netns, index, link) {
                // Gone since it was listed, as a short-lived pod's link may be; that is an event of its own.
                Err(_) if !is_there(&self.netns, index)? => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Compares the kernel with what we believe; what differs.
    pub(super) fn audit(&self) -> Result<Option<String>, EbpfError> {
        let Some(active) = &self.active else {
            return Ok(None);
        };
        if let Some(lost) = active.attachments.lost(&self.netns)? {
            return Ok(Some(format!("{lost} is no longer attached")));
        }
        let Some(tables) = Tables::open(&self.settings.pin_dir())? else {
            return Ok(Some("a map is no longer pinned".to_owned()));
        };
        Ok((!tables.hold(&self.image)?).then(|| "the maps were changed from outside".to_owned()))
    }
}

fn is_there(netns: &NetNs, index: u32) -> Result<bool, EbpfError> {
    let _inside = netns.enter()?;
    Ok(nix::net::if_::if_indextoname(index).is_ok())
}
