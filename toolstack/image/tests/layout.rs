//! The start-of-day region: every address that must be mapped is, to the right frame, and no page table is writable.

mod support;

use std::collections::HashMap;

use domain_image::{Kernel, LayoutError, Plan, Request, Role, start_of_day};
use support::{INIT_P2M, VIRT_BASE, small_kernel};
use xen_abi::ids::{Mfn, Pfn, Port};

fn mfn_of(pfn: Pfn) -> Mfn {
    Mfn(pfn.0 + 0x1_0000)
}

fn plan_of(image: &[u8], pages: u64, ramdisk_len: u64, role: Role) -> Result<Plan, LayoutError> {
    Plan::new(&Kernel::parse(image).unwrap(), &Request { pages, ramdisk_len, role })
}

/// Walks the tables as a CPU would: frame and L1 flags.
struct Walker {
    frames: HashMap<u64, Box<[u64; 512]>>,
    root: Mfn,
}

impl Walker {
    fn new(plan: &Plan) -> Self {
        let mut frames = HashMap::new();
        for table in plan.tables() {
            let mut entries = Box::new([0; 512]);
            plan.fill_table(&table, mfn_of, &mut entries);
            assert!(frames.insert(mfn_of(table.pfn).0, entries).is_none(), "two tables in one frame");
        }
        Self { frames, root: mfn_of(plan.root()) }
    }

    fn walk(&self, virt: u64) -> Option<(Pfn, u64)> {
        let mut frame = self.root.0;
        for level in (1..=4).rev() {
            let index = (virt >> (12 + 9 * (level - 1))) & 511;
            let entry = self.frames[&frame][usize::try_from(index).unwrap()];
            if entry & 1 == 0 {
                return None;
            }
            assert_eq!(entry & 4, 4, "not for ring 3");
            if level > 1 {
                assert_eq!(entry & 2, 2, "upper levels stay writable");
            }
            frame = (entry & 0x000f_ffff_ffff_f000) >> 12;
            if level == 1 {
                return Some((Pfn(frame - 0x1_0000), entry & 0xfff));
            }
        }
        None
    }
}

fn check(plan: &Plan) {
    let walker = Walker::new(plan);
    let end = plan.main.pages;
    assert_eq!((plan.virt_base.wrapping_add(end << 12)) % (4 << 20), 0);
    assert!(((end - plan.stack.0 - 1) << 12) >= 512 << 10);
    for pfn in 0..end {
        let (mapped, flags) = walker.walk(plan.virt(Pfn(pfn))).unwrap();
        assert_eq!(mapped, Pfn(pfn));
        assert_eq!(flags & 2 == 0, plan.is_page_table(Pfn(pfn)));
    }
    if let Some(next) = plan.virt_base.checked_add(end << 12) {
        assert_eq!(walker.walk(next), None);
    }
    for i in 0..plan.p2m.list.pages {
        let (mapped, flags) = walker.walk(plan.p2m.virt + (i << 12)).unwrap();
        assert_eq!(mapped, Pfn(plan.p2m.list.first.0 + i));
        assert_eq!(flags & 2, 2);
    }
    // Nothing overlaps: each use is a run of frames of its own.
    let mut runs = vec![(plan.kernel.first.0, plan.kernel.end()), (plan.p2m.list.first.0, plan.p2m.list.end())];
    runs.extend(plan.ramdisk.map(|r| (r.span.first.0, r.span.end())));
    for pfn in [Some(plan.start_info), plan.store, plan.console, Some(plan.stack)].into_iter().flatten() {
        runs.push((pfn.0, pfn.0 + 1));
    }
    for area in [Some(plan.main), plan.p2m.own].into_iter().flatten() {
        runs.push((area.tables().first.0, area.tables().end()));
    }
    runs.sort_unstable();
    for pair in runs.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    assert!(runs.last().unwrap().1 <= plan.pages);
}

#[test]
fn linux_shape() {
    let plan = plan_of(&small_kernel(0x123_4567, &[]), 0xc000, 5000, Role::DomU).unwrap();
    check(&plan);
    let own = plan.p2m.own.unwrap();
    assert_eq!(plan.p2m.virt, INIT_P2M);
    assert_eq!(plan.p2m.list.pages, 0xc000 * 8 / 4096);
    // 96 pages of list need one L1, one L2, one L3.
    assert_eq!(own.tables().pages, 3);
    assert!(plan.p2m.list.first.0 >= plan.main.pages);
    let ramdisk = plan.ramdisk.unwrap();
    assert!(!ramdisk.mapped && ramdisk.span.first.0 >= plan.main.pages && ramdisk.span.pages == 2);
    // Kernel, start_info, store, console, tables, stack follow one another.
    assert_eq!(plan.start_info.0, plan.kernel.end());
    assert_eq!(plan.store, Some(Pfn(plan.start_info.0 + 1)));
    assert_eq!(plan.console, Some(Pfn(plan.start_info.0 + 2)));
    assert_eq!(plan.root(), Pfn(plan.start_info.0 + 3));
    assert_eq!(plan.stack.0, plan.main.tables().end());
}

#[test]
fn everything_in_the_region() {
    // Without INIT_P2M and MOD_START_PFN both list and ramdisk are mapped with the kernel.
    let plan = plan_of(&small_kernel(0x8_0000, &[15, 16]), 2048, 70_000, Role::Dom0).unwrap();
    check(&plan);
    assert!(plan.p2m.own.is_none() && plan.ramdisk.unwrap().mapped);
    assert_eq!((plan.store, plan.console), (None, None));
    assert_eq!(plan.needed, plan.main.pages);
}

#[test]
fn many_sizes() {
    for kernel in [0x4000, 0x1f_0000, 0x1f_f000, 0x20_0000, 0x30_0000, 0x3f_f000, 0x40_0000, 0x4000_0000] {
        for ramdisk in [0, 1, 4096, 3_000_000] {
            for skip in [&[][..], &[15], &[16], &[15, 16]] {
                let plan = plan_of(&small_kernel(kernel, skip), 0x6_0000, ramdisk, Role::DomU).unwrap();
                check(&plan);
            }
        }
    }
}

#[test]
fn too_small() {
    let image = small_kernel(0x20_0000, &[]);
    // What it says it needs is enough, but for the p2m list, which grows with the domain.
    let mut pages = 100;
    while let Err(error) = plan_of(&image, pages, 0, Role::DomU) {
        let LayoutError::TooSmall { need, have } = error else { panic!("{error}") };
        assert!(have == pages && need > have);
        pages = need;
    }
    assert!(pages < 1040);
    check(&plan_of(&image, pages, 0, Role::DomU).unwrap());
    assert!(plan_of(&image, pages - 3, 0, Role::DomU).is_err());
    assert!(plan_of(&image, u64::MAX, 0, Role::DomU).is_err());
    assert!(plan_of(&image, 4096, u64::MAX, Role::DomU).is_err());
}

#[test]
fn region_ends_with_the_address_space() {
    // 1 GiB less 1 MiB of kernel leaves no room in the top 2 GiB; half as much does.
    assert!(plan_of(&small_kernel(0x7fe0_0000, &[]), 0x10_0000, 0, Role::DomU).is_err());
    check(&plan_of(&small_kernel(0x4000_0000, &[]), 0x10_0000, 0, Role::DomU).unwrap());
}

#[test]
fn start_info_and_context() {
    let plan = plan_of(&small_kernel(0x20_0000, &[]), 0x2000, 5000, Role::DomU).unwrap();
    let inputs = start_of_day::StartInputs {
        shared_info: 0x1234_5000,
        flags: 0,
        store_mfn: Mfn(7),
        store_port: Port(1),
        console: start_of_day::Console::DomU { mfn: Mfn(8), port: Port(2) },
        cmdline: b"console=hvc0",
    };
    let info = plan.start_info(&inputs).unwrap();
    assert!(info.magic.starts_with(b"xen-3.0-x86_64\0"));
    assert_eq!(info.flags, 1 << 3);
    assert_eq!(info.nr_pages, 0x2000);
    assert_eq!(info.mod_start, plan.ramdisk.unwrap().span.first.0);
    assert_eq!(info.mod_len, 5000);
    assert_eq!(info.pt_base, VIRT_BASE + (plan.root().0 << 12));
    assert_eq!(info.mfn_list, INIT_P2M);
    assert_eq!(info.first_p2m_pfn, plan.p2m.list.first.0);
    assert_eq!(info.nr_p2m_frames, plan.p2m.list.pages + 3);
    assert!(info.cmd_line.starts_with(b"console=hvc0\0"));
    let long = start_of_day::StartInputs { cmdline: &[b'a'; 1024], ..inputs };
    assert!(matches!(plan.start_info(&long), Err(LayoutError::CommandLine { have: 1024, limit: 1023 })));

    let context = plan.vcpu_context(Mfn(0x55));
    assert_eq!(context.user_regs.rip, VIRT_BASE + 0x10_0000);
    assert_eq!(context.user_regs.rsi, VIRT_BASE + (plan.start_info.0 << 12));
    assert_eq!(context.user_regs.rsp, VIRT_BASE + ((plan.stack.0 + 1) << 12));
    assert_eq!((context.user_regs.cs, context.user_regs.ss, context.user_regs.ds), (0xe033, 0xe02b, 0));
    assert_eq!(context.ctrlreg[3], 0x55000);

    let mut page = [0; 512];
    plan.fill_p2m(15, mfn_of, &mut page);
    assert_eq!(page[511], 0x1_1fff);
    plan.fill_p2m(16, mfn_of, &mut page);
    assert_eq!(page, [u64::MAX; 512]);
}
