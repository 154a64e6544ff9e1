//! Pools of CPUs: which there are, and which CPUs are whose.
//!
//! Rules and errors are those of `XEN_SYSCTL_CPUPOOL_OP_*`. A pool is known to the rest of the hypervisor by its place
//! ([`Slot`]), which does not change; who is in it counts itself elsewhere.

use arrayvec::ArrayVec;
use xen_abi::errno::Errno;

use super::{place::CpuMask, policy::Scheduler};

/// The most pools there can be: Xen allows twice as many as there are CPUs.
pub const POOLS: usize = 128;

/// The pool that there always is, with CPU 0.
pub const FIRST: u32 = 0;

/// A pool's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    /// Of the pool that there always is.
    pub const FIRST: Slot = Slot(0);

    /// As an index.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Of an index.
    #[must_use]
    pub fn of(index: usize) -> Option<Self> {
        (index < POOLS).then(|| u8::try_from(index).ok().map(Slot)).flatten()
    }
}

/// A pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its number.
    pub id: u32,
    /// Its place.
    pub slot: Slot,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// Its CPUs.
    pub cpus: CpuMask,
}

/// All pools, in the order of their numbers.
#[derive(Debug)]
pub struct Pools {
    all: ArrayVec<Pool, POOLS>,
    online: CpuMask,
}

impl Pools {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Pools { all: ArrayVec::new_const(), online: CpuMask(0) }
    }

    /// The first pool, with all CPUs.
    pub fn start(&mut self, scheduler: Scheduler, online: CpuMask) {
        self.online = online;
        self.all.clear();
        self.all.push(Pool { id: FIRST, slot: Slot::FIRST, scheduler, cpus: online });
    }

    /// The pool of a number.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Pool> {
        self.all.iter().find(|pool| pool.id == id)
    }

    fn find_mut(&mut self, id: u32) -> Result<&mut Pool, Errno> {
        self.all.iter_mut().find(|pool| pool.id == id).ok_or(Errno::ENOENT)
    }

    /// The pool of a number, or else of the next one.
    #[must_use]
    pub fn next_from(&self, id: u32) -> Option<&Pool> {
        self.all.iter().find(|pool| pool.id >= id)
    }

    /// The pool at a place.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&Pool> {
        self.all.iter().find(|pool| pool.slot == slot)
    }

    /// CPUs that are in no pool.
    #[must_use]
    pub fn free(&self) -> CpuMask {
        CpuMask(self.all.iter().fold(self.online.0, |free, pool| free & !pool.cpus.0))
    }

    /// A new pool without CPUs, under that number or the one after the highest. `ENOSPC`: there are as many as there can be;
    /// `EEXIST`: there is one; `ENOENT`: there is no such scheduler.
    pub fn create(&mut self, id: Option<u32>, scheduler: Option<Scheduler>) -> Result<Pool, Errno> {
        /// No pool has this number.
        const NONE: u32 = u32::MAX;
        let most = 2 * self.online.0.count_ones() as usize;
        if self.all.len() >= most.min(POOLS) {
            return Err(Errno::ENOSPC);
        }
        let id = match id {
            Some(id) if self.find(id).is_some() => return Err(Errno::EEXIST),
            Some(id) => id,
            None => {
                let after = self.all.last().map_or(FIRST, |pool| pool.id.saturating_add(1));
                if after == NONE { (FIRST..NONE).find(|id| self.find(*id).is_none()).unwrap_or(NONE) } else { after }
            }
        };
        let scheduler = scheduler.ok_or(Errno::ENOENT)?;
        let slot = (0..POOLS).filter_map(Slot::of).find(|slot| self.at(*slot).is_none()).ok_or(Errno::ENOSPC)?;
        let pool = Pool { id, slot, scheduler, cpus: CpuMask(0) };
        let at = self.all.partition_point(|other| other.id < id);
        self.all.try_insert(at, pool).map_err(|_| Errno::ENOSPC)?;
        Ok(pool)
    }

    /// Takes a pool away. `ENOENT`: there is none; `EBUSY`: it has domains or CPUs.
    pub fn destroy(&mut self, id: u32, domains: impl Fn(Slot) -> u32) -> Result<Pool, Errno> {
        let at = self.all.iter().position(|pool| pool.id == id).ok_or(Errno::ENOENT)?;
        let pool = *self.all.get(at).ok_or(Errno::ENOENT)?;
        if domains(pool.slot) != 0 || pool.cpus != CpuMask(0) {
            return Err(Errno::EBUSY);
        }
        self.all.remove(at);
        Ok(pool)
    }

    /// Which CPU of that name a pool would get (`None`: any that is free). `ENODEV`: it is not free; `EINVAL`: there cannot
    /// be one of that number.
    pub fn can_add(&self, id: u32, cpu: Option<u32>) -> Result<(Pool, u32), Errno> {
        let pool = *self.find(id).ok_or(Errno::ENOENT)?;
        let free = self.free();
        let cpu = match cpu {
            None => free.first().ok_or(Errno::ENODEV)?,
            Some(cpu) if cpu >= u64::BITS - self.online.0.leading_zeros() => return Err(Errno::EINVAL),
            Some(cpu) => cpu,
        };
        if free.has(cpu) { Ok((pool, cpu)) } else { Err(Errno::ENODEV) }
    }

    /// Gives a free CPU to a pool.
    pub fn add(&mut self, id: u32, cpu: u32) -> Result<(), Errno> {
        let pool = self.find_mut(id)?;
        pool.cpus.0 |= CpuMask::one(cpu).0;
        Ok(())
    }

    /// Which CPU of that name can leave a pool (`None`: the highest), and whether it is the last of it. `EINVAL`: there is no
    /// such CPU, or it is CPU 0 in the first pool; `EADDRNOTAVAIL`: it is not in that pool.
    pub fn can_remove(&self, id: u32, cpu: Option<u32>) -> Result<(Pool, u32, bool), Errno> {
        let pool = *self.find(id).ok_or(Errno::ENOENT)?;
        let highest = |mask: CpuMask| (u64::BITS - mask.0.leading_zeros()).checked_sub(1);
        let cpu = match cpu {
            None => highest(pool.cpus).ok_or(Errno::EINVAL)?,
            Some(cpu) => cpu,
        };
        if !self.online.has(cpu) || (id == FIRST && cpu == 0) {
            return Err(Errno::EINVAL);
        }
        if !pool.cpus.has(cpu) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        Ok((pool, cpu, pool.cpus == CpuMask::one(cpu)))
    }

    /// Takes a CPU out of a pool.
    pub fn remove(&mut self, id: u32, cpu: u32) -> Result<(), Errno> {
        let pool = self.find_mut(id)?;
        pool.cpus.0 &= !CpuMask::one(cpu).0;
        Ok(())
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> Pools {
        let mut pools = Pools::new();
        pools.start(Scheduler::Credit2, CpuMask(0b1111));
        pools
    }

    #[test]
    fn a_cpu_moves() {
        let mut pools = four();
        assert_eq!(pools.free(), CpuMask(0));
        assert_eq!(pools.can_add(0, None), Err(Errno::ENODEV));
        assert_eq!(pools.can_remove(0, Some(0)), Err(Errno::EINVAL), "CPU 0 stays");
        assert_eq!(pools.can_remove(0, Some(4)), Err(Errno::EINVAL));
        let (pool, cpu, last) = pools.can_remove(0, None).unwrap();
        assert_eq!((pool.id, cpu, last), (0, 3, false));
        pools.remove(0, 3).unwrap();
        assert_eq!(pools.free(), CpuMask(0b1000));
        assert_eq!(pools.can_remove(0, Some(3)), Err(Errno::EADDRNOTAVAIL));
        let second = pools.create(None, Some(Scheduler::Null)).unwrap();
        assert_eq!(second.id, 1);
        assert_eq!(pools.can_add(1, Some(2)), Err(Errno::ENODEV));
        assert_eq!(pools.can_add(1, Some(64)), Err(Errno::EINVAL));
        assert_eq!(pools.can_add(2, None), Err(Errno::ENOENT));
        assert_eq!(pools.can_add(1, None).unwrap().1, 3);
        pools.add(1, 3).unwrap();
        assert_eq!(pools.destroy(1, |_| 0), Err(Errno::EBUSY));
        assert!(pools.can_remove(1, Some(3)).unwrap().2, "its last");
        pools.remove(1, 3).unwrap();
        assert_eq!(pools.destroy(1, |_| 1), Err(Errno::EBUSY));
        assert_eq!(pools.destroy(1, |_| 0).unwrap().id, 1);
        assert_eq!(pools.destroy(1, |_| 0), Err(Errno::ENOENT));
    }

    #[test]
    fn numbers() {
        let mut pools = four();
        let sched = Some(Scheduler::Credit);
        assert_eq!(pools.create(Some(0), sched).map(|pool| pool.id), Err(Errno::EEXIST));
        assert_eq!(pools.create(Some(7), sched).unwrap().id, 7);
        assert_eq!(pools.create(Some(3), sched).unwrap().id, 3);
        assert_eq!(pools.create(None, sched).unwrap().id, 8);
        assert_eq!(pools.create(None, None), Err(Errno::ENOENT));
        assert_eq!(pools.next_from(4).map(|pool| pool.id), Some(7));
        assert_eq!(pools.next_from(9), None);
        assert_eq!(pools.create(Some(u32::MAX - 1), sched).unwrap().id, u32::MAX - 1);
        assert_eq!(pools.create(None, sched).unwrap().id, 1, "the numbers have wrapped");
        assert!((0..2).all(|_| pools.create(None, sched).is_ok()));
        assert_eq!(pools.create(None, sched), Err(Errno::ENOSPC));
        let slots: std::collections::BTreeSet<usize> = pools.all.iter().map(|pool| pool.slot.index()).collect();
        assert_eq!(slots.len(), 8);
    }

    extern crate std;
}
