/*
 * Counts who executes how many instructions: the hypervisor, the control domain, or a guest. A plugin for QEMU's TCG (plugin
 * API version 1, QEMU 6 to 8). The few declarations needed are below, so no header of QEMU's has to be installed.
 *
 * The hypervisor is known by its part of the address space. Domains are told apart by the memory that their code lies in, in
 * pieces of 2 MiB: what is executed while the first of the numbers below is 0 is the control domain's, and so is all code
 * in the same pieces; other code is a guest's.
 *
 * Argument: out=FILE, in which four numbers of 64 bits stand at all times: whether there are guests (written by others), then
 * the instructions of the hypervisor, of the control domain, and of guests.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { ADD_U64 = 0 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
EXPORT int qemu_plugin_version = 1;

/* The hypervisor's part of the address space, on Xen and on xen-rs. */
#define HYPERVISOR_START 0xffff800000000000ull
#define HYPERVISOR_END 0xffff880000000000ull

enum { GUESTS, HYPERVISOR, CONTROL, GUEST, NUMBERS };
static volatile uint64_t *numbers;

/* Pieces of memory with code of the control domain, as the emulator sees them: a table with open addressing. */
#define PIECES 4096
static uint64_t pieces[PIECES];

static bool known(uint64_t piece, bool add)
{
    for (unsigned at = piece % PIECES, tries = 0; tries < PIECES; at = (at + 1) % PIECES, tries++) {
        if (pieces[at] == piece)
            return true;
        if (!pieces[at]) {
            if (add)
                pieces[at] = piece;
            return add;
        }
    }
    return false;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(block, 0);
    uint64_t address = qemu_plugin_insn_vaddr(first);
    unsigned who = HYPERVISOR;
    if (address < HYPERVISOR_START || address >= HYPERVISOR_END)
        who = known((uint64_t)qemu_plugin_insn_haddr(first) >> 21, !numbers[GUESTS]) ? CONTROL : GUEST;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, (void *)&numbers[who], qemu_plugin_tb_n_insns(block));
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    for (int at = 0; at < argc; at++) {
        if (strncmp(argv[at], "out=", 4))
            continue;
        int file = open(argv[at] + 4, O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (file < 0 || ftruncate(file, NUMBERS * sizeof *numbers))
            return -1;
        void *place = mmap(NULL, NUMBERS * sizeof *numbers, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (place == MAP_FAILED)
            return -1;
        numbers = place;
    }
    if (!numbers)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
