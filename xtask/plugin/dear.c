/*
 * Counts what the hypervisor executes between two marks of the guest: a plugin for QEMU's TCG (plugin API version 1,
 * QEMU 6 to 8). The few declarations needed are below, so no header of QEMU's has to be installed.
 *
 * A mark is the instruction `nop dword ptr [rax + MARK]` with one of the numbers below: it does nothing on any machine.
 *
 * Arguments: out=FILE, and for the boot: entry=ADDRESS of the hypervisor's first instruction, guest=ADDRESS of the first
 * guest's. Lines written:
 *     row CR MSR TLB IPI LOCK VM IO STATE    what was counted between two marks
 *     at NAME N                        instructions executed since `entry`
 */
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
enum { NO_REGISTERS = 0, ADD_U64 = 0, WRITES = 2 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                             void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *), int, int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t, uint64_t);
extern bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);
EXPORT int qemu_plugin_version = 1;

/* The hypervisor's part of the address space, on Xen and on xen-rs. */
#define HYPERVISOR_START 0xffff800000000000u
#define HYPERVISOR_END 0xffff880000000000u
/* Interrupt command register, low half, of the local APIC at its usual place (SDM vol. 3A, 11.6.1). */
#define ICR_LOW 0xfee00300u

enum { MARK_BEGIN = 0x78656e01, MARK_END = 0x78656e02, MARK_READY = 0x78656e03 };

enum { CR, MSR, TLB, IPI, LOCK, VM, IO, STATE, CLASSES };
static uint64_t counts[CLASSES];
static uint64_t begun[CLASSES];
static uint64_t executed;
static uint64_t since;
static uint64_t entry, guest;
static FILE *out;

/* What an instruction is: a set of classes. Opcodes are those of 64-bit mode. */
static unsigned classes_of(const uint8_t *code, size_t size)
{
    unsigned classes = 0;
    size_t at = 0;
    for (; at < size; at++) {
        uint8_t byte = code[at];
        if (byte == 0xf0) {
            classes |= 1 << LOCK;
        } else if (!(byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e || byte == 0x36 ||
                     byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65)) {
            break;
        }
    }
    if (at < size && (code[at] & 0xf0) == 0x40)
        at++;
    if (at >= size)
        return classes;
    uint8_t opcode = code[at++];
    uint8_t modrm = at < size ? code[at] : 0;
    if ((opcode == 0x86 || opcode == 0x87) && modrm < 0xc0) /* xchg with memory locks by itself */
        return classes | 1 << LOCK;
    if ((opcode >= 0xe4 && opcode <= 0xe7) || (opcode >= 0xec && opcode <= 0xef) || (opcode >= 0x6c && opcode <= 0x6f))
        return classes | 1 << IO;
    if (opcode != 0x0f || at >= size)
        return classes;
    opcode = code[at++];
    modrm = at < size ? code[at] : 0;
    unsigned reg = modrm >> 3 & 7;
    switch (opcode) {
    case 0x22: /* mov to a control register; CR3 empties the TLB */
        return classes | 1 << CR | (reg == 3 ? 1 << TLB : 0);
    case 0x30:
        return classes | 1 << MSR;
    case 0x01:
        if (modrm < 0xc0 && reg == 7) /* invlpg */
            return classes | 1 << TLB;
        if (modrm == 0xd8 || modrm == 0xc2 || modrm == 0xc3) /* vmrun, vmlaunch, vmresume: one exit each */
            return classes | 1 << VM;
        if (modrm == 0xda || modrm == 0xdb) /* vmload, vmsave */
            return classes | 1 << STATE;
        return modrm == 0xdf ? classes | 1 << TLB : classes; /* invlpga */
    case 0x78: /* vmread, vmwrite */
    case 0x79:
        return classes | 1 << STATE;
    case 0x38: /* invept, invvpid, invpcid */
        return modrm >= 0x80 && modrm <= 0x82 ? classes | 1 << TLB : classes;
    default:
        return classes;
    }
}

static uint32_t mark_of(const uint8_t *code, size_t size)
{
    uint32_t mark;
    if (size != 7 || code[0] != 0x0f || code[1] != 0x1f || code[2] != 0x80)
        return 0;
    memcpy(&mark, code + 3, 4);
    return mark;
}

static void on_begin(unsigned cpu, void *data)
{
    memcpy(begun, counts, sizeof counts);
}

static void on_end(unsigned cpu, void *data)
{
    fprintf(out, "row");
    for (int class = 0; class < CLASSES; class++)
        fprintf(out, " %llu", (unsigned long long)(counts[class] - begun[class]));
    fprintf(out, "\n");
    fflush(out);
}

/* The name is said once: what is executed later at the same address is no news. */
static void on_place(unsigned cpu, void *data)
{
    static const char *said[4];
    for (int at = 0; at < 4; at++) {
        if (said[at] == data)
            return;
        if (!said[at]) {
            said[at] = data;
            break;
        }
    }
    if (!strcmp(data, "entry"))
        since = executed;
    fprintf(out, "at %s %llu\n", (const char *)data, (unsigned long long)(executed - since));
    fflush(out);
}

static void on_write(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    if ((address & 0xfff) != (ICR_LOW & 0xfff))
        return;
    struct qemu_plugin_hwaddr *place = qemu_plugin_get_hwaddr(info, address);
    if (place && qemu_plugin_hwaddr_is_io(place) && (qemu_plugin_hwaddr_phys_addr(place) & 0xfff) == (ICR_LOW & 0xfff))
        counts[IPI]++;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t at = 0; at < count; at++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, at);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        const uint8_t *code = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        if (entry) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &executed, 1);
            if (address == entry)
                qemu_plugin_register_vcpu_insn_exec_cb(insn, on_place, NO_REGISTERS, "entry");
            if (address == guest)
                qemu_plugin_register_vcpu_insn_exec_cb(insn, on_place, NO_REGISTERS, "guest");
        }
        switch (mark_of(code, size)) {
        case MARK_BEGIN:
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, NO_REGISTERS, NULL);
            break;
        case MARK_END:
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, NO_REGISTERS, NULL);
            break;
        case MARK_READY:
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_place, NO_REGISTERS, "ready");
            break;
        }
        if (entry || address < HYPERVISOR_START || address >= HYPERVISOR_END)
            continue;
        unsigned classes = classes_of(code, size);
        for (int class = 0; class < CLASSES; class++)
            if (classes >> class & 1)
                qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &counts[class], 1);
        qemu_plugin_register_vcpu_mem_cb(insn, on_write, NO_REGISTERS, WRITES, NULL);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    for (int at = 0; at < argc; at++) {
        if (!strncmp(argv[at], "out=", 4))
            out = fopen(argv[at] + 4, "w");
        else if (!strncmp(argv[at], "entry=", 6))
            entry = strtoull(argv[at] + 6, NULL, 16);
        else if (!strncmp(argv[at], "guest=", 6))
            guest = strtoull(argv[at] + 6, NULL, 16);
    }
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
