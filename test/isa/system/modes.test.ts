// From real mode through protected mode to 64-bit mode and back, as boot code does it, and the rules at each step (SDM Vol. 3A 9.8, 9.9).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../../src/isa/exit.ts";
import { CR0, RIP, SEGMENTS, SREG, TR } from "../../../src/isa/state.ts";
import { AT, SELECTOR } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";
import { execute, machine } from "./machine.ts";

/** Pointers to the rig's tables, for LGDT and LIDT, where real mode code can reach them. */
const TABLES = `
  gdtr: .word 0x57; .long ${AT.GDT}
  idtr: .word 0xfff; .long ${AT.IDT}
  .long 0`;

test("real mode interrupts go through the vector table and return", () => {
  const rig = machine().realMode();
  rig.view.setUint32(0x21 * 4, 0x10000300, true);
  rig.write(0x10300, assemble("mov bx, sp; mov dx, cs; iret", 0x300, 16));
  const code = assemble("sti; stc; int 0x21; pushf; pop ax; hlt", 0, 16);
  rig.write(0x10000, code);
  rig.engine.set(RIP, 0);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.engine.gpr(3), 0x7ffan);
  assert.equal(Number(rig.engine.gpr(2)) & 0xffff, 0x1000);
  assert.equal(rig.engine.gpr(0), 0x203n);
  assert.equal(rig.view.getUint16(0x7ffa, true), 4, "IP behind the INT");
});

test("real mode to 64-bit mode and back to compatibility mode", () => {
  const rig = machine().realMode();
  const code = assemble(
    `cli
     lgdt [gdtr]
     mov eax, cr0; or al, 1; mov cr0, eax
     .byte 0x66, 0xea; .long start32; .word ${SELECTOR.CODE32}
     .code32
     start32: mov ax, ${SELECTOR.DATA}; mov ds, ax; mov es, ax; mov ss, ax; mov esp, ${AT.STACK_TOP}
     mov eax, cr4; or eax, 0x620; mov cr4, eax
     mov eax, ${AT.PML4}; mov cr3, eax
     mov ecx, 0xc0000080; rdmsr; or eax, 0x101; wrmsr
     mov eax, cr0; or eax, 0x80000000; mov cr0, eax
     mov ebx, cs
     .byte 0xea; .long start64; .word ${SELECTOR.CODE64}
     .code64
     start64: mov r8, 0x123456789abcdef0
     lidt [rip + idtr64]
     mov ax, ${SELECTOR.TSS}; ltr ax
     push ${SELECTOR.CODE32}; lea rax, [rip + compat]; push rax; retfq
     .code32
     compat: mov edi, cs; push edi; pop esi
     mov eax, cr0; and eax, 0x7fffffff; mov cr0, eax
     mov ecx, 0xc0000080; rdmsr; mov ebp, eax
     .byte 0xea; .long start16; .word ${SELECTOR.CODE16}
     .code16
     start16: mov eax, cr0; and al, 0xfe; mov cr0, eax
     ljmp 0, real
     real: mov dx, cs; hlt
     ${TABLES}
     idtr64: .word 0xfff; .quad ${AT.IDT}`,
    0x7000,
    16,
  );
  rig.write(0x7000, code);
  rig.segment(SEGMENTS[SREG.CS], 0, 0x9b, 0xffff, 0);
  rig.engine.registersChanged();
  assert.equal(rig.run(code, 0x7000), 1);
  assert.equal(rig.engine.gpr(8), 0x123456789abcdef0n);
  assert.equal(rig.engine.gpr(3), BigInt(SELECTOR.CODE32));
  assert.equal(rig.engine.gpr(7), BigInt(SELECTOR.CODE32));
  assert.equal(Number(rig.engine.gpr(5)) & 0xd00, 0x100, "LMA falls with paging, LME stays");
  assert.equal(rig.engine.gpr(2), 0n);
  assert.equal((rig.engine.get(CR0) as number) & 1, 0);
});

test("rules of CR0, CR4, CR3 and EFER", () => {
  const faults = (source: string, model = "max"): number => {
    const rig = machine(model).longMode();
    rig.run(assemble(`${source}; hlt`, AT.CODE));
    return rig.caught();
  };
  assert.equal(faults("mov rax, cr0; btr rax, 0; mov cr0, rax"), 13, "PG without PE");
  assert.equal(faults("mov rax, cr0; bts rax, 29; mov cr0, rax"), 13, "NW without CD");
  assert.equal(faults("mov rax, cr0; btr rax, 31; mov cr0, rax"), 13, "PG cleared in 64-bit mode");
  assert.equal(faults("mov rax, cr0; bts rax, 40; mov cr0, rax"), 13, "upper half of CR0");
  assert.equal(faults("mov rax, cr0; bts rax, 10; mov cr0, rax"), -1, "reserved low bits are ignored");
  assert.equal(faults("mov rax, cr4; btr rax, 5; mov cr4, rax"), 13, "PAE cleared in IA-32e mode");
  assert.equal(faults("mov rax, cr4; bts rax, 12; mov cr4, rax"), 13, "LA57 is not there");
  assert.equal(faults("mov rax, cr4; bts rax, 17; mov cr4, rax"), -1, "PCIDE");
  assert.equal(faults("mov rax, cr3; or al, 8; mov cr3, rax; mov rax, cr4; bts rax, 17; mov cr4, rax"), 13);
  assert.equal(faults("mov rax, cr3; bts rax, 63; mov cr3, rax"), 13, "bit 63 without PCIDE");
  assert.equal(faults("mov rax, cr4; bts rax, 17; mov cr4, rax; mov rax, cr3; bts rax, 63; mov cr3, rax"), -1);
  assert.equal(faults("mov rax, cr3; bts rax, 50; mov cr3, rax"), 13, "beyond the physical address width");
  assert.equal(faults("mov rax, cr4; bts rax, 20; mov cr4, rax", "x86-64,-smep"), 13, "SMEP taken away");
  assert.equal(faults("mov ecx, 0xc0000080; rdmsr; btr eax, 8; wrmsr"), 13, "LME while paging");
  assert.equal(faults("mov ecx, 0xc0000080; rdmsr; bts eax, 12; wrmsr"), 13, "SVME");
  assert.equal(faults("mov rax, cr1"), 6);
  assert.equal(faults("mov eax, 16; mov cr8, rax"), 13);
  assert.equal(faults("mov ecx, 0xc0000082; mov eax, 0; mov edx, 0x8000; wrmsr"), 13, "LSTAR must be canonical");
  assert.equal(faults("mov ecx, 0x277; mov eax, 2; xor edx, edx; wrmsr"), 13, "memory type 2");
  assert.equal(faults("mov ecx, 0x12345; rdmsr"), 13);
});

test("debug registers", () => {
  const rig = machine().longMode();
  execute(rig, "mov rax, -1; mov dr0, rax; mov eax, 0xffffffff; mov dr6, rax; mov rax, dr6; mov rbx, dr0; hlt");
  assert.equal(rig.engine.gpr(0), 0xffffefffn);
  assert.equal(rig.engine.gpr(3), 0xffffffffffffffffn);
  rig.longMode();
  // DR7.GD is set now: any access is #DB, which clears it.
  rig.run(assemble("mov eax, 0x2400; mov dr7, rax; mov rax, dr0; hlt", AT.CODE));
  assert.equal(rig.caught(), 1);
  execute(rig, "mov rax, dr6; mov rbx, dr7; hlt");
  assert.equal(Number(rig.engine.gpr(0)) & 0x2000, 0x2000);
  assert.equal(rig.engine.gpr(3), 0x400n);
});

test("privileged instructions are #GP in ring 3", () => {
  const sources = [
    "hlt",
    "cli",
    "sti",
    "mov rax, cr0",
    "mov cr3, rax",
    "mov rax, dr7",
    "invlpg [rax]",
    "rdmsr",
    "wrmsr",
    "swapgs",
    "wbinvd",
    "clts",
    "lgdt [rsp]",
    "lldt ax",
    "ltr ax",
    "in al, dx",
    "out dx, al",
    "lmsw ax",
    "xsetbv",
  ];
  for (const source of sources) {
    const rig = machine().longMode(3);
    rig.run(assemble(source, AT.CODE));
    assert.equal(rig.caught(), 13, source);
  }
  const umip = machine().longMode(3);
  umip.run(assemble("sgdt [rsp-64]; ud2", AT.CODE));
  assert.equal(umip.caught(), 6, "allowed without UMIP");
});

test("the I/O permission bit map opens single ports", () => {
  const run = (port: number): number => {
    const rig = machine().longMode(3);
    rig.view.setUint16(AT.TSS + 0x66, 0x68, true);
    rig.bytes.fill(0xff, AT.TSS + 0x68, AT.TSS + 0x68 + 0x80);
    rig.bytes[AT.TSS + 0x68 + (0x60 >> 3)] = 0xfe;
    rig.engine.set(TR.limit, 0x68 + 0x40);
    rig.run(assemble(`mov edx, ${port}; mov al, 0x55; out dx, al; int 0x80`, AT.CODE));
    return rig.caught();
  };
  assert.equal(run(0x60), 0x80);
  assert.equal(run(0x61), 13);
  assert.equal(run(0x3f8), 13, "the map ends before");
});
