//! The hypercalls of the machine that exists on paper only.

use super::*;

impl XenCalls for Machine {
    fn create_domain(&mut self, new: &NewDomain) -> Result<DomId, Errno> {
        self.call("create_domain")?;
        let dom = DomId(self.next_dom);
        self.next_dom += 1;
        self.free -= 2;
        let shared_info_frame = self.take_frame(dom);
        let kind = if matches!(new.kind, Kind::Pvh { .. }) { DomainInfo::HVM } else { 0 };
        let info = DomainInfo {
            id: dom,
            flags: DomainInfo::PAUSED | kind,
            shared_info_frame,
            uuid: new.uuid,
            cpupool: new.pool,
            ..Default::default()
        };
        self.take_frame(dom);
        self.domains.insert(dom.0, Domain { pauses: 1, ..Domain::new(info, *new) });
        Ok(dom)
    }
    fn destroy_domain(&mut self, dom: DomId) -> Result<(), Errno> {
        let rounds = self.destroy_rounds;
        let domain = self.dom(dom)?;
        if domain.pauses < 1000 * rounds {
            domain.pauses += 1000;
            return Err(Errno::EAGAIN);
        }
        assert!(self.introduced.iter().chain(&self.consoles).all(|(d, ..)| *d != dom), "still mapped by a service");
        self.domains.remove(&dom.0);
        let before = self.frames.len();
        self.frames.retain(|_, frame| frame.owner != dom);
        self.free += (before - self.frames.len()) as u64;
        Ok(())
    }
    fn pause_domain(&mut self, dom: DomId) -> Result<(), Errno> {
        let domain = self.dom(dom)?;
        domain.pauses += 1;
        domain.info.flags |= DomainInfo::PAUSED;
        Ok(())
    }
    fn unpause_domain(&mut self, dom: DomId) -> Result<(), Errno> {
        self.call("unpause_domain")?;
        let domain = self.dom(dom)?;
        domain.pauses = domain.pauses.checked_sub(1).ok_or(Errno::EINVAL)?;
        if domain.pauses == 0 {
            domain.info.flags &= !DomainInfo::PAUSED;
        }
        Ok(())
    }
    fn remote_shutdown(&mut self, dom: DomId, reason: u32) -> Result<(), Errno> {
        self.dom(dom)?;
        self.ended(dom.0, reason);
        Ok(())
    }
    fn domain_list(&mut self, first: DomId, max: usize) -> Result<Vec<DomainInfo>, Errno> {
        self.call("domain_list")?;
        Ok(self.domains.range(first.0..).take(max).map(|(_, domain)| domain.info).collect())
    }
    fn vcpu_info(&mut self, dom: DomId, vcpu: VcpuId) -> Result<VcpuInfo, Errno> {
        let domain = self.dom(dom)?;
        let online = vcpu.0 < domain.info.online_vcpus;
        Ok(VcpuInfo { online, blocked: online, running: false, cpu_time: 1_250_000_000, cpu: vcpu.0 })
    }
    fn vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId) -> Result<(CpuSet, CpuSet), Errno> {
        Ok(self.dom(dom)?.affinity.get(&vcpu.0).copied().unwrap_or((CpuSet::ALL, CpuSet::ALL)))
    }
    fn set_vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId, affinity: &Affinity) -> Result<(), Errno> {
        let (hard, soft) = self.vcpu_affinity(dom, vcpu)?;
        let domain = self.dom(dom)?;
        if vcpu.0 > domain.info.max_vcpu_id {
            return Err(Errno::EINVAL);
        }
        domain.affinity.insert(vcpu.0, (affinity.hard.unwrap_or(hard), affinity.soft.unwrap_or(soft)));
        Ok(())
    }
    fn send_trigger(&mut self, dom: DomId, trigger: u32, vcpu: VcpuId) -> Result<(), Errno> {
        self.dom(dom)?.triggers.push((trigger, vcpu.0));
        if trigger == 0 { Ok(()) } else { Err(Errno::ENOSYS) }
    }
    fn set_max_vcpus(&mut self, dom: DomId, count: u32) -> Result<(), Errno> {
        self.call("set_max_vcpus")?;
        let domain = self.dom(dom)?;
        assert_eq!(count, domain.new.max_vcpus);
        domain.info.online_vcpus = 1;
        domain.info.max_vcpu_id = count - 1;
        Ok(())
    }
    fn set_max_mem(&mut self, dom: DomId, kib: u64) -> Result<(), Errno> {
        self.call("set_max_mem")?;
        self.dom(dom)?.max_mem_kib = kib;
        Ok(())
    }
    fn share(&mut self, dom: DomId, scheduler: u32) -> Result<Share, Errno> {
        let domain = self.dom(dom)?;
        let (pool, share) = (domain.info.cpupool, domain.share);
        if self.pool(pool)?.scheduler == scheduler { Ok(share) } else { Err(Errno::EINVAL) }
    }
    fn set_share(&mut self, dom: DomId, _: u32, share: Share) -> Result<(), Errno> {
        self.call("set_share")?;
        self.dom(dom)?.share = share;
        Ok(())
    }
    fn schedule(&mut self, pool: u32, scheduler: u32) -> Result<Schedule, Errno> {
        if self.pool(pool)?.scheduler == scheduler { Ok(self.schedule) } else { Err(Errno::EINVAL) }
    }
    fn set_schedule(&mut self, _: u32, _: u32, schedule: Schedule) -> Result<(), Errno> {
        self.schedule = schedule;
        Ok(())
    }
    fn pool_info(&mut self, from: u32) -> Result<PoolInfo, Errno> {
        let mut pool = *self.pools.range(from..).next().ok_or(Errno::ENOENT)?.1;
        let domains = self.domains.values().filter(|domain| domain.info.cpupool == pool.id).count();
        pool.domains = u32::try_from(domains).unwrap();
        Ok(pool)
    }
    fn free_cpus(&mut self) -> Result<CpuSet, Errno> {
        let mut free = CpuSet::default();
        (0..4).filter(|cpu| !self.pools.values().any(|pool| pool.cpus.has(*cpu))).for_each(|cpu| free.add(cpu));
        Ok(free)
    }
    fn change_pool(&mut self, change: PoolChange) -> Result<u32, Errno> {
        let free = self.free_cpus()?;
        match change {
            PoolChange::Create(scheduler) => {
                let id = self.pools.keys().last().map_or(0, |last| last + 1);
                self.pools.insert(id, PoolInfo { id, scheduler, domains: 0, cpus: CpuSet::default() });
                return Ok(id);
            }
            PoolChange::Destroy(id) => {
                let pool = self.pool(id)?;
                if pool.cpus != CpuSet::default() {
                    return Err(Errno::EBUSY);
                }
                self.pools.remove(&id);
            }
            PoolChange::Add(id, cpu) if free.has(cpu) => self.pool(id)?.cpus.add(cpu),
            PoolChange::Remove(id, cpu) if self.pool(id)?.cpus.has(cpu) && cpu != 0 => self.pool(id)?.cpus.remove(cpu),
            PoolChange::Add(..) | PoolChange::Remove(..) => return Err(Errno::EADDRNOTAVAIL),
            PoolChange::Move(id, dom) => {
                self.pool(id)?;
                self.dom(dom)?.info.cpupool = id;
            }
        }
        Ok(0)
    }
    fn set_tsc_mode(&mut self, dom: DomId, _: u32) -> Result<(), Errno> {
        self.call("set_tsc_mode")?;
        self.dom(dom).map(drop)
    }
    fn set_time_offset(&mut self, dom: DomId, _: i64) -> Result<(), Errno> {
        self.call("set_time_offset")?;
        self.dom(dom).map(drop)
    }
    fn set_address_size(&mut self, dom: DomId, bits: u32) -> Result<(), Errno> {
        self.call("set_address_size")?;
        assert_eq!((bits, self.dom(dom)?.info.tot_pages), (64, 0), "only an empty domain can change");
        Ok(())
    }
    fn set_memory_map(&mut self, dom: DomId, map: &[E820Entry]) -> Result<(), Errno> {
        self.call("set_memory_map")?;
        self.dom(dom)?.memory_map = map.to_vec();
        Ok(())
    }
    fn set_paging_pool(&mut self, dom: DomId, bytes: u64) -> Result<(), Errno> {
        self.call("set_paging_pool")?;
        self.dom(dom)?.paging_pool = bytes;
        Ok(())
    }
    fn set_hvm_param(&mut self, dom: DomId, index: u32, value: u64) -> Result<(), Errno> {
        self.call("set_hvm_param")?;
        self.dom(dom)?.params.insert(index, value);
        Ok(())
    }
    fn hvm_context(&mut self, dom: DomId) -> Result<Vec<u8>, Errno> {
        self.call("hvm_context")?;
        let vcpus = u16::try_from(self.dom(dom)?.new.max_vcpus).unwrap();
        let record = |code: u16, instance: u16, len: usize| {
            let mut bytes = [code.to_le_bytes(), instance.to_le_bytes()].concat();
            bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
            bytes.extend(vec![0; len]);
            bytes
        };
        let mtrrs = (0..vcpus).flat_map(|vcpu| record(14, vcpu, size_of::<xen_abi::hvm::HvmHwMtrr>()));
        Ok(record(1, 0, 24).into_iter().chain(mtrrs).chain(record(0, 0, 0)).collect())
    }
    fn set_hvm_context(&mut self, dom: DomId, records: &[u8]) -> Result<(), Errno> {
        self.call("set_hvm_context")?;
        self.dom(dom)?.hvm_context = records.to_vec();
        Ok(())
    }
    fn cpu_policy(&mut self, _: DomId) -> Result<CpuPolicy, Errno> {
        self.call("cpu_policy")?;
        Ok(CpuPolicy { leaves: vec![CpuidLeaf { leaf: 1, b: 0x1_0000, ..Default::default() }], msrs: vec![] })
    }
    fn set_cpu_policy(&mut self, _: DomId, policy: &CpuPolicy) -> Result<(), Errno> {
        self.call("set_cpu_policy")?;
        assert_eq!(policy.leaves[0].b, 0x2_0000, "room for twice the numbers");
        Ok(())
    }
    fn write_grant_table(&mut self, dom: DomId, bytes: &[u8]) -> Result<(), Errno> {
        let frame = Mfn(self.dom(dom)?.info.shared_info_frame.0 + 1);
        self.write_frames(dom, &[frame], 0, Fill::Bytes(bytes))
    }
    fn fill_hypercall_page(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno> {
        self.call("fill_hypercall_page")?;
        self.dom(dom)?.hypercall_page = Some(frame);
        Ok(())
    }
    fn set_vcpu_context(&mut self, dom: DomId, vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
        self.call("set_vcpu_context")?;
        assert_eq!(vcpu, VcpuId(0));
        let domain = self.dom(dom)?;
        assert!(domain.pinned.is_some());
        domain.context = Some(Box::new(*context));
        Ok(())
    }
    fn populate(&mut self, dom: DomId, order: u32, pfns: &[Pfn], mfns: &mut [Mfn]) -> Result<usize, Errno> {
        self.call("populate")?;
        assert_eq!(pfns.len(), mfns.len());
        if order > 0 && !self.superpages {
            return Ok(0);
        }
        let mut expected = self.dom(dom)?.info.tot_pages;
        let mut done = 0;
        for (pfn, mfn) in pfns.iter().zip(mfns) {
            let allowed = self.dom(dom)?.max_mem_kib / 4;
            if self.free < 1 << order || expected + (1 << order) > allowed {
                break;
            }
            if let Kind::Pvh { .. } = self.dom(dom)?.new.kind {
                // Its frames are numbered by its own memory, and what stands in the array stays.
                expected += 1 << order;
                *mfn = Mfn(pfn.0);
                self.free -= 1 << order;
                for frame in pfn.0..pfn.0 + (1 << order) {
                    let there = self.frames.insert(frame, Frame { owner: dom, bytes: None });
                    assert!(there.is_none(), "{frame:#x} is there already");
                }
                done += 1;
                continue;
            }
            assert_eq!(pfn.0, expected, "pages come in order");
            expected += 1 << order;
            // Scattered on purpose.
            self.next_mfn += 3;
            *mfn = Mfn(self.next_mfn);
            for _ in 0..1 << order {
                self.take_frame(dom);
            }
            self.free -= 1 << order;
            done += 1;
        }
        self.dom(dom)?.info.tot_pages = expected;
        Ok(done)
    }
    fn write_frames(&mut self, dom: DomId, frames: &[Mfn], offset: usize, fill: Fill<'_>) -> Result<(), Errno> {
        self.call("write_frames")?;
        assert!(offset + fill.len() <= frames.len() * 4096);
        let mut at = offset;
        let end = offset + fill.len();
        while at < end {
            let frame = self.frames.get_mut(&frames[at / 4096].0).filter(|f| f.owner == dom).ok_or(Errno::EPERM)?;
            let bytes = frame.bytes.get_or_insert_with(|| Box::new([0xcc; 4096]));
            let stop = end.min((at / 4096 + 1) * 4096);
            let to = &mut bytes[at % 4096..at % 4096 + (stop - at)];
            match fill {
                Fill::Bytes(from) => to.copy_from_slice(&from[at - offset..stop - offset]),
                Fill::Zeros(_) => to.fill(0),
            }
            at = stop;
        }
        Ok(())
    }
    fn highest_frame(&mut self, dom: DomId) -> Result<u64, Errno> {
        self.frames.iter().rfind(|(_, frame)| frame.owner == dom).map(|(number, _)| *number).ok_or(Errno::ESRCH)
    }
    fn frame_types(&mut self, dom: DomId, frames: &mut [u64]) -> Result<(), Errno> {
        assert!(frames.len() <= 1024);
        for frame in frames {
            let owned = self.frames.get(frame).is_some_and(|f| f.owner == dom);
            *frame = if owned { 0 } else { 0xf000_0000 };
        }
        Ok(())
    }
    fn frame_limit(&mut self) -> Result<u64, Errno> {
        Ok(self.next_mfn + 1)
    }
    fn pfn_of(&mut self, frame: Mfn) -> Option<Pfn> {
        Some(Pfn(frame.0 ^ 0x5_0000))
    }
    fn read_frames(&mut self, _: DomId, frames: &[Mfn], content: &mut Vec<u8>) -> Result<(), Errno> {
        for frame in frames {
            if self.broken.contains(frame) {
                return Err(Errno::EINVAL);
            }
            content.extend(self.frame(*frame));
        }
        Ok(())
    }
    fn vcpu_context(&mut self, dom: DomId, _: VcpuId) -> Result<Box<VcpuGuestContext>, Errno> {
        self.dom(dom)?.context.clone().ok_or(Errno::EINVAL)
    }
    fn pin_root(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno> {
        self.call("pin_root")?;
        self.dom(dom)?.pinned = Some(frame);
        Ok(())
    }
    fn alloc_unbound(&mut self, dom: DomId, remote: DomId) -> Result<Port, Errno> {
        self.call("alloc_unbound")?;
        assert_eq!(remote, DomId(0));
        let domain = self.dom(dom)?;
        domain.ports += 1;
        Ok(Port(domain.ports))
    }
    fn phys_info(&mut self) -> Result<PhysInfo, Errno> {
        self.call("phys_info")?;
        Ok(PhysInfo {
            nr_cpus: self.cpus,
            max_cpu_id: self.cpus - 1,
            nr_nodes: 1,
            threads_per_core: 1,
            cores_per_socket: 1,
            cpu_khz: 2_596_122,
            capabilities: self.capabilities,
            total_pages: 0x2_0000,
            free_pages: self.free,
            ..Default::default()
        })
    }
    fn version(&mut self) -> Result<VersionInfo, Errno> {
        Ok(VersionInfo {
            major: 4,
            minor: 17,
            extra: ".7".into(),
            page_size: 4096,
            virt_start: 0xffff_8000_0000_0000,
            ..Default::default()
        })
    }
    fn cpu_topology(&mut self) -> Result<Vec<CpuTopo>, Errno> {
        Ok((0..2).map(|core| CpuTopo { core, socket: 0, node: 0 }).collect())
    }
    fn numa(&mut self) -> Result<Vec<(MemInfo, Vec<u32>)>, Errno> {
        Ok(vec![(MemInfo { memsize: 1 << 30, memfree: 256 << 20 }, vec![10])])
    }
    fn node_affinity(&mut self, _: DomId) -> Result<CpuSet, Errno> {
        let mut nodes = CpuSet::default();
        nodes.add(0);
        Ok(nodes)
    }
    fn device_nodes(&mut self) -> Result<Vec<(PciDevice, u32)>, Errno> {
        let device = |devfn| PciDevice { seg: 0, bus: 2, devfn };
        Ok(vec![(device(8), XEN_INVALID_NODE_ID), (device(0x1a), self.device_node), (device(0xf0), XEN_INVALID_DEV)])
    }
    fn scheduler(&mut self) -> Result<u32, Errno> {
        Ok(6)
    }
    fn read_console(&mut self, _: Clear) -> Result<Vec<u8>, Errno> {
        Ok(b"(XEN) hello\n".to_vec())
    }
    fn debug_keys(&mut self, _: &str) -> Result<(), Errno> {
        Ok(())
    }
}
