/*
 * Looks for long stretches in which the hypervisor takes no interrupt: a plugin for QEMU's TCG (plugin API version 1,
 * QEMU 6 to 8). The few declarations needed are below, so no header of QEMU's has to be installed.
 *
 * A stretch ends where the CPU is given to a guest (`iretq`, `sysretq`, or an instruction of a guest), waits, or takes
 * interrupts (`sti`). What a CPU does while it waits for another is not counted: that is the other one's stretch, and what
 * surrounds `pause` polls for requests. Before the first guest runs there is nobody to wait.
 *
 * Arguments: out=FILE and limit=N. A line for each stretch longer than both the limit and all before it of its CPU:
 *     stretch N START AT...            instructions, where it began, and where it was after each tenth of the limit
 */
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
EXPORT int qemu_plugin_version = 1;

/* The hypervisor's part of the address space, on Xen and on xen-rs; a PV guest's kernel lies above. */
#define HYPERVISOR_START 0xffff800000000000u
#define HYPERVISOR_END 0xffff880000000000u

/* What lies between two `pause` of one wait, at most. */
enum { CPUS = 64, PLACES = 40, ROUND = 200 };

struct block {
    uint64_t address;
    unsigned count;
    bool ours, kernel, opens, waits;
};

static struct cpu {
    uint64_t length, longest, start, pause, places[PLACES];
    unsigned place;
} cpus[CPUS];
static bool begun;
static uint64_t limit = 50000;
static FILE *out;

static void ends(struct cpu *cpu)
{
    if (cpu->length > limit && cpu->length > cpu->longest) {
        cpu->longest = cpu->length;
        fprintf(out, "stretch %llu %llx", (unsigned long long)cpu->length, (unsigned long long)cpu->start);
        for (unsigned at = 0; at < cpu->place; at++)
            fprintf(out, " %llx", (unsigned long long)cpu->places[at]);
        fprintf(out, "\n");
        fflush(out);
    }
    cpu->length = 0;
    cpu->pause = 0;
    cpu->place = 0;
}

static void on_block(unsigned index, void *data)
{
    const struct block *block = data;
    struct cpu *cpu = &cpus[index % CPUS];
    if (!begun) {
        begun = block->kernel;
        return;
    }
    if (!block->ours) {
        if (cpu->length)
            ends(cpu);
        return;
    }
    if (block->waits) {
        if (cpu->length - cpu->pause < ROUND)
            cpu->length = cpu->pause;
        cpu->pause = cpu->length;
        return;
    }
    if (!cpu->length)
        cpu->start = block->address;
    cpu->length += block->count;
    if (cpu->place < PLACES && cpu->length >= (cpu->place + 1) * limit / 10)
        cpu->places[cpu->place++] = block->address;
    if (block->opens)
        ends(cpu);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    struct block *block = calloc(1, sizeof *block); /* lives as long as the code */
    if (!block || !count)
        return;
    block->address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    block->count = count;
    block->ours = block->address >= HYPERVISOR_START && block->address < HYPERVISOR_END;
    block->kernel = block->address >= HYPERVISOR_END;
    for (size_t at = 0; at < count; at++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, at);
        const uint8_t *code = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        if ((size == 1 && (code[0] == 0xfb || code[0] == 0xf4)) || (size == 2 && code[0] == 0x48 && code[1] == 0xcf) ||
            (size == 3 && code[0] == 0x48 && code[1] == 0x0f && code[2] == 0x07))
            block->opens = true;
        if (size == 2 && code[0] == 0xf3 && code[1] == 0x90)
            block->waits = true;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGISTERS, block);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    for (int at = 0; at < argc; at++) {
        if (!strncmp(argv[at], "out=", 4))
            out = fopen(argv[at] + 4, "w");
        else if (!strncmp(argv[at], "limit=", 6))
            limit = strtoull(argv[at] + 6, NULL, 10);
    }
    if (!out || limit < 10)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
