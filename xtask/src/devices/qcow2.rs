//! An empty disk in QEMU's own format (`docs/interop/qcow2.txt` there, version 2): header, table of reference counts, one block
//! of those, first-level table, a cluster each.

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// What an entry of the first-level table stands for: a cluster of 8-byte entries, each a cluster.
const REACH: u64 = (CLUSTER as u64 / 8) << CLUSTER_BITS;

/// The file of a disk of so many bytes.
pub fn empty(bytes: u64) -> Vec<u8> {
    let mut file = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| file[at..at + field.len()].copy_from_slice(field);
    let cluster = |number: u64| (number << CLUSTER_BITS).to_be_bytes();
    put(0, b"QFI\xfb");
    put(4, &2u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &bytes.to_be_bytes());
    put(36, &u32::try_from(bytes.div_ceil(REACH)).unwrap_or(0).to_be_bytes());
    put(40, &cluster(3));
    put(48, &cluster(1));
    put(56, &1u32.to_be_bytes());
    put(CLUSTER, &cluster(2));
    for used in 0..4 {
        put(2 * CLUSTER + 2 * used, &1u16.to_be_bytes());
    }
    file
}
