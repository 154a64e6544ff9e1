//! What is done on which CPU, and what options say.

use super::*;

fn skylake() -> Hardware {
    Hardware {
        vendor: Some(Vendor::Intel),
        signature: 0x0005_06e3,
        leaf_7_edx: 1 << 26 | 1 << 10,
        leaf_8_eax: 39,
        smep: true,
        ..Hardware::default()
    }
}

fn wish(text: &str) -> Wishes {
    let mut wishes = Wishes::default();
    wishes.spec_ctrl(text).unwrap();
    wishes
}

#[test]
fn a_cpu_that_needs_nothing() {
    let quiet =
        Hardware { vendor: Some(Vendor::Intel), smep: true, arch_capabilities: Some(1 | MDS_NO | 1 << 6), ..skylake() };
    let plan = Plan::new(&Hardware { leaf_7_edx: 0, ..quiet }, &Wishes::default());
    assert_eq!(plan, Plan::default());
    assert_eq!(alloc::format!("{plan}"), " none; PV L1TF: Dom0 disabled, DomU disabled");
}

#[test]
fn a_cpu_that_needs_much() {
    let plan = Plan::new(&skylake(), &Wishes::default());
    assert_eq!(
        plan,
        Plan {
            verw: true,
            verw_containers: true,
            ibpb: true,
            ibpb_entry_containers: true,
            l1tf_guests: true,
            small_code: true,
            ..Plan::default()
        }
    );
    assert!(Plan::new(&Hardware { leaf_7_edx: 1 << 28, ..skylake() }, &Wishes::default()).l1d_flush);
    assert_eq!(alloc::format!("{plan}"), " VERW IBPB-ctxt; PV L1TF: Dom0 disabled, DomU enabled");
    assert!(Plan::new(&Hardware { smep: false, ..skylake() }, &Wishes::default()).rsb);
    let later = Hardware { arch_capabilities: Some(1 | IBRS_ALL | MDS_NO | 1 << 6), ..skylake() };
    assert_eq!(Plan::new(&later, &Wishes::default()), Plan { ibpb: true, ibrs: true, ..Plan::default() });
}

#[test]
fn what_else_verw_is_for() {
    let cascade_lake = Hardware { arch_capabilities: Some(1 | IBRS_ALL | MDS_NO), ..skylake() };
    assert!(!Plan::new(&cascade_lake, &Wishes::default()).verw && !cascade_lake.vulnerable().mds);
    let with_tsx = Hardware { leaf_7_ebx: 1 << 11, ..cascade_lake };
    assert!(Plan::new(&with_tsx, &Wishes::default()).verw && with_tsx.vulnerable().mds);
    let told = Hardware { arch_capabilities: Some(MDS_NO | TAA_NO), ..with_tsx };
    assert!(!Plan::new(&told, &Wishes::default()).verw_containers);
    let atom = Hardware { arch_capabilities: Some(MDS_NO | RFDS_CLEAR), ..cascade_lake };
    assert!(Plan::new(&atom, &Wishes::default()).verw_containers);
}

#[test]
fn amd() {
    let zen = Hardware {
        vendor: Some(Vendor::Amd),
        signature: 0x0080_0f12,
        leaf_8_ebx: 1 << 12,
        smep: true,
        ..Hardware::default()
    };
    let plan = Plan { ibpb: true, ibpb_entry: true, ibpb_entry_containers: true, lfence: true, ..Plan::default() };
    assert_eq!(Plan::new(&zen, &Wishes::default()), plan);
    let zen_4 = Hardware { leaf_21_eax: 1 << 2 | 1 << 8, signature: 0x00a1_0f11, ..zen };
    assert_eq!(Plan::new(&zen_4, &Wishes::default()), Plan { ibpb: true, automatic_ibrs: true, ..Plan::default() });
}

#[test]
fn wishes_count() {
    // What stops the whole machine is another option's.
    assert_eq!(Plan::new(&skylake(), &wish("no")), Plan { small_code: true, ..Plan::default() });
    assert_eq!(Plan::new(&skylake(), &wish("no-xen")), Plan { l1tf_guests: true, small_code: true, ..Plan::default() });
    let both = Plan::new(&Hardware::default(), &wish("pv"));
    assert!(both.verw && both.rsb);
    assert!(!Plan::new(&skylake(), &wish("no-verw")).verw);
    let some = Plan::new(&skylake(), &wish("verw=pv=no"));
    assert!(!some.verw && some.verw_containers);
    let others = Plan::new(&skylake(), &wish("verw=hvm=no,ibpb-entry=pv"));
    assert!(others.verw && !others.verw_containers && others.ibpb_entry && others.ibpb_entry_containers);
    let none = Plan::new(&Hardware { leaf_7_edx: 1 << 28 | 1 << 26, ..skylake() }, &wish("no-hvm,l1d-flush=off"));
    assert!(!none.verw_containers && !none.ibpb_entry_containers && !none.l1d_flush);
    assert!(!Plan::new(&skylake(), &wish("ibpb=no,md-clear=0")).ibpb);
    assert!(!Plan::new(&Hardware::default(), &wish("ibpb")).ibpb, "it is not there");
}

#[test]
fn code_in_large_pages() {
    let plan = |hardware: Hardware, text| {
        let mut wishes = Wishes::default();
        wishes.ept(text).unwrap();
        Plan::new(&hardware, &wishes).small_code
    };
    let later = Hardware { arch_capabilities: Some(1 << 6), ..skylake() };
    assert!(plan(skylake(), "ad=no") && !plan(skylake(), "exec-sp") && plan(skylake(), "exec-sp=0"));
    assert!(!plan(later, "pml") && !plan(later, "exec-sp=1") && plan(later, "no-exec-sp"));
}

#[test]
fn unknown_parts() {
    let mut wishes = Wishes::default();
    assert_eq!(wishes.ept("exec-sp=no,turbo"), Err("turbo"));
    assert_eq!(wishes.large_code, Some(false));
    assert_eq!(wishes.spec_ctrl("verw=no,turbo,ssbd"), Err("turbo"));
    assert_eq!(wishes.verw, Kinds { pv: Some(false), containers: Some(false) });
    assert_eq!(wishes.pv_l1tf(Some("domu=no,moon")), Err("moon"));
    assert_eq!(wishes.pv_l1tf(None), Ok(()));
    assert_eq!((wishes.l1tf_control, wishes.l1tf_guests), (Some(true), Some(true)));
    assert_eq!(wishes.pv_l1tf(Some("dom0=no")), Ok(()));
    assert_eq!((wishes.l1tf_control, wishes.l1tf_guests), (Some(false), Some(true)));
}

#[test]
fn addresses_that_l1tf_does_not_reach() {
    assert_eq!(skylake().l1tf_safe_from(), 1 << 39, "the cache knows more bits than the CPU");
    assert_eq!(Hardware { leaf_8_eax: 46, ..skylake() }.l1tf_safe_from(), 3 << 44);
    assert_eq!(Hardware::default().l1tf_safe_from(), u64::MAX);
}
