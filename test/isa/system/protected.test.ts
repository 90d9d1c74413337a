// 32-bit protected mode: gates, privilege changes, virtual-8086 mode, tasks (SDM Vol. 3A 5.8, 6.12, 7; Vol. 3B 20).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../../src/isa/exit.ts";
import {
  CPL,
  CR0,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  RFLAGS,
  RIP,
  SEGMENTS,
  SREG,
  TR,
} from "../../../src/isa/state.ts";
import { AT, type Rig, SELECTOR } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";
import { machine } from "./machine.ts";

const GDT = AT.GDT;
const IDT = 0x5000;
const TSS_A = 0x6000;
const TSS_B = 0x6100;
const RING0_STACK = 0x30000;
/** Selectors beyond the rig's. */
const S = {
  TSS_A: 0x58,
  TSS_B: 0x60,
  CALL_GATE: 0x68,
  TASK_GATE: 0x70,
  CONFORMING: 0x78,
  READ_ONLY: 0x80,
  ABSENT: 0x88,
  EXPAND_DOWN: 0x90,
  LDT: 0x98,
} as const;

function descriptor(rig: Rig, selector: number, base: number, limit: number, access: number, flags = 0): void {
  const at = GDT + (selector & ~7);
  const low = ((base & 0xffff) * 65536 + (limit & 0xffff)) >>> 0;
  const high =
    ((base & 0xff000000) | (((base >> 16) & 0xff) | (access << 8) | (limit & 0xf0000) | (flags << 20))) >>> 0;
  rig.view.setUint32(at, low, true);
  rig.view.setUint32(at + 4, high, true);
}

function gate(rig: Rig, at: number, selector: number, offset: number, access: number, count = 0): void {
  rig.view.setUint32(at, (selector * 65536 + (offset & 0xffff)) >>> 0, true);
  rig.view.setUint32(at + 4, ((offset & 0xffff0000) | (access << 8) | count) >>> 0, true);
}

/** Ring 0, flat, with an IDT of 32-bit interrupt gates of DPL 3 that halt. */
function protectedMachine(): Rig {
  const rig = machine().protectedMode();
  for (let vector = 0; vector < 256; vector++) {
    gate(rig, IDT + vector * 8, SELECTOR.CODE32, AT.HANDLERS + vector * 16, 0xee);
    rig.bytes[AT.HANDLERS + vector * 16] = 0xf4;
  }
  const e = rig.engine;
  e.set(IDTR_BASE, IDT);
  e.set(IDTR_LIMIT, 0x7ff);
  e.set(GDTR_LIMIT, 0xff);
  descriptor(rig, S.TSS_A, TSS_A, 0x67, 0x8b);
  descriptor(rig, S.TSS_B, TSS_B, 0x67, 0x89);
  descriptor(rig, S.CONFORMING, 0, 0xfffff, 0x9f, 0xc);
  descriptor(rig, S.READ_ONLY, 0, 0xfffff, 0xf1, 0xc);
  descriptor(rig, S.ABSENT, 0, 0xfffff, 0x72, 0xc);
  descriptor(rig, S.EXPAND_DOWN, 0, 0xfff, 0xf7, 0x4);
  descriptor(rig, S.LDT, 0x7000, 0x7, 0x82);
  rig.segment(TR, S.TSS_A, 0x8b, 0x67, TSS_A);
  rig.view.setUint32(TSS_A + 4, RING0_STACK, true);
  rig.view.setUint16(TSS_A + 8, SELECTOR.DATA, true);
  rig.view.setUint16(TSS_A + 0x66, 0x68, true);
  return rig;
}

function run(rig: Rig, source: string): number {
  rig.run(assemble(source, AT.CODE, 32));
  return rig.caught();
}

const TO_USER = `push ${SELECTOR.USER_DATA}; push 0x40000; push 0x202; push ${SELECTOR.USER_CODE32}; push offset user; iretd; user:`;

function stack(rig: Rig, count: number): number[] {
  const esp = Number(rig.engine.gpr(4));
  return Array.from({ length: count }, (_, n) => rig.view.getUint32(esp + n * 4, true));
}

test("an interrupt of user code switches to the stack of the TSS", () => {
  const rig = protectedMachine();
  assert.equal(run(rig, `${TO_USER} mov ax, ${SELECTOR.USER_DATA}; mov ds, ax; int 0x80`), 0x80);
  const at = AT.CODE + assemble(`${TO_USER} mov ax, 0; mov ds, ax; int 0x80`, AT.CODE, 32).length;
  assert.deepEqual(stack(rig, 5), [at, SELECTOR.USER_CODE32, 0x202, 0x40000, SELECTOR.USER_DATA]);
  assert.equal(rig.engine.gpr(4), BigInt(RING0_STACK - 20));
  assert.equal(rig.engine.get(SEGMENTS[SREG.SS].selector), SELECTOR.DATA);
  assert.equal(rig.engine.get(SEGMENTS[SREG.DS].selector), SELECTOR.USER_DATA);
});

test("exceptions push error codes; 16-bit gates push words", () => {
  const rig = protectedMachine();
  assert.equal(run(rig, `mov ax, ${S.ABSENT}; mov ds, ax`), 11);
  assert.deepEqual(stack(rig, 3), [S.ABSENT, AT.CODE + 4, SELECTOR.CODE32]);
  const narrow = protectedMachine();
  gate(narrow, IDT + 6 * 8, SELECTOR.CODE32, AT.HANDLERS + 6 * 16, 0x86);
  narrow.write(0x9000, assemble("ud2", 0x9000, 32));
  narrow.run(assemble("ud2", 0x9000, 32), 0x9000);
  assert.equal(narrow.caught(), 6);
  assert.equal(narrow.engine.gpr(4), BigInt(AT.STACK_TOP - 6));
});

test("loads of segment registers check type and privilege", () => {
  const loads = (register: string, selector: number, prologue = ""): number =>
    run(protectedMachine(), `${prologue} mov ax, ${selector}; mov ${register}, ax; int 0x99`);
  assert.equal(loads("ds", S.READ_ONLY), 0x99);
  assert.equal(loads("ss", S.READ_ONLY), 13);
  assert.equal(loads("ss", 0), 13);
  assert.equal(loads("ds", 0), 0x99);
  assert.equal(loads("es", SELECTOR.CODE32), 0x99, "readable code");
  assert.equal(loads("ds", S.TSS_A), 13);
  assert.equal(loads("ds", 0x100), 13, "beyond the table");
  assert.equal(loads("ds", SELECTOR.DATA, TO_USER), 13, "DPL below CPL");
  assert.equal(loads("ds", SELECTOR.DATA | 3), 13, "DPL below RPL");
  assert.equal(loads("fs", S.CONFORMING, TO_USER), 0x99);
  assert.equal(run(protectedMachine(), "xor eax, eax; mov ds, ax; mov eax, [ebx]"), 13, "null segment used");
  const down = `mov ax, ${S.EXPAND_DOWN}; mov ds, ax; `;
  assert.equal(run(protectedMachine(), `${down} mov eax, [0x1000]; int 0x99`), 0x99);
  assert.equal(run(protectedMachine(), `${down} mov eax, [0xfff]`), 13);
});

test("LAR, LSL, VERR, VERW", () => {
  const rig = protectedMachine();
  run(
    rig,
    `mov cx, ${S.READ_ONLY}; lar eax, cx; setz bl; lsl esi, cx; verr cx; setz bh; verw cx; setz dl
     mov cx, ${S.CALL_GATE}; lsl edi, cx; setz dh; int 0x99`,
  );
  assert.equal(rig.engine.gpr(0), 0xc0f100n);
  assert.equal(rig.engine.gpr(6), 0xffffffffn);
  assert.equal(Number(rig.engine.gpr(3)) & 0xffff, 0x0101);
  assert.equal(Number(rig.engine.gpr(2)) & 0xffff, 0);
});

test("a call gate copies parameters to the inner stack, and RETF n drops them on both", () => {
  const rig = protectedMachine();
  const target = 0x110000;
  rig.write(target, assemble("mov ebx, [esp+8]; mov ecx, [esp+12]; mov edx, cs; retf 8", target, 32));
  gate(rig, GDT + S.CALL_GATE, SELECTOR.CODE32, target, 0xec, 2);
  const vector = run(
    rig,
    `${TO_USER} push 0x1111; push 0x2222; .byte 0x9a; .long 0; .word ${S.CALL_GATE | 3}; mov esi, esp; mov edi, cs; int 0x99`,
  );
  assert.equal(vector, 0x99);
  assert.equal(rig.engine.gpr(3), 0x2222n);
  assert.equal(rig.engine.gpr(1), 0x1111n);
  assert.equal(rig.engine.gpr(2), BigInt(SELECTOR.CODE32));
  assert.equal(rig.engine.gpr(6), 0x40000n);
  assert.equal(rig.engine.gpr(7), BigInt(SELECTOR.USER_CODE32));
});

test("virtual-8086 mode: entry by IRETD, interrupts leave it, sensitive instructions fault", () => {
  const enter = (iopl: number): string =>
    `push 0x44; push 0x33; push 0x22; push 0x11; push 0x2000; push 0x100; push ${0x20202 | (iopl << 12)}; push 0x3000; push 0; iretd`;
  const rig = protectedMachine();
  rig.write(0x30000, assemble("mov ax, ds; mov bx, cs; mov cx, ss; int3", 0, 16));
  assert.equal(run(rig, enter(0)), 3);
  assert.equal(Number(rig.engine.gpr(0)) & 0xffff, 0x22);
  assert.equal(Number(rig.engine.gpr(3)) & 0xffff, 0x3000);
  assert.equal(Number(rig.engine.gpr(1)) & 0xffff, 0x2000);
  assert.deepEqual(stack(rig, 9), [7, 0x3000, 0x20202, 0x100, 0x2000, 0x11, 0x22, 0x33, 0x44]);
  assert.equal(rig.engine.get(SEGMENTS[SREG.GS].selector), 0);
  assert.equal((rig.engine.get(RFLAGS) as number) & 0x20000, 0);
  for (const [source, iopl, vector] of [
    ["int 0x21", 0, 13],
    ["int 0x21", 3, 0x21],
    ["cli", 0, 13],
    ["pushf", 0, 13],
    ["hlt", 3, 13],
    ["iret", 0, 13],
    ["str ax", 3, 6],
  ] as const) {
    const each = protectedMachine();
    each.write(0x30000, assemble(`${source}; int3`, 0, 16));
    assert.equal(run(each, enter(iopl)), vector, `${source} with IOPL ${iopl}`);
  }
});

/** A task in TSS_B: code, stack, and what its registers start with. */
function taskB(rig: Rig, source: string, set: { [offset: number]: number } = {}): void {
  const at = 0x120000;
  rig.write(at, assemble(source, at, 32));
  const words: { [offset: number]: number } = {
    32: at,
    36: 0x2,
    40: 0xb0b0,
    56: 0x28000,
    72: SELECTOR.DATA,
    76: SELECTOR.CODE32,
    80: SELECTOR.DATA,
    84: SELECTOR.DATA,
    88: 0,
    92: 0,
    100: 0x680000,
    ...set,
  };
  for (const [offset, value] of Object.entries(words)) rig.view.setUint32(TSS_B + Number(offset), value, true);
}

test("a task is called, returns by IRET, and both find their registers", () => {
  const rig = protectedMachine();
  taskB(rig, "mov ebx, [esp]; pushfd; pop edx; mov [0x60000], edx; mov [0x60004], eax; iretd");
  const vector = run(rig, `mov eax, 5; mov esi, 77; stc; .byte 0x9a; .long 0; .word ${S.TSS_B}; setc bl; int 0x99`);
  assert.equal(vector, 0x99);
  assert.equal(rig.engine.gpr(0), 5n);
  assert.equal(rig.engine.gpr(6), 77n);
  assert.equal(Number(rig.engine.gpr(3)) & 0xff, 1);
  assert.equal(rig.view.getUint32(0x60000, true) & 0x4000, 0x4000, "NT is set in a nested task");
  assert.equal(rig.view.getUint32(0x60004, true), 0xb0b0);
  assert.equal(rig.view.getUint16(TSS_B, true), S.TSS_A, "link");
  assert.equal(rig.bytes[GDT + S.TSS_B + 5], 0x89, "available again");
  assert.equal(rig.bytes[GDT + S.TSS_A + 5], 0x8b, "busy still");
  assert.equal((rig.engine.get(CR0) as number) & 8, 8, "TS");
  assert.equal(rig.engine.get(TR.selector), S.TSS_A);
});

test("a jump to a task frees the old one; a busy task is refused", () => {
  const rig = protectedMachine();
  taskB(rig, "str ax; int 0x99");
  assert.equal(run(rig, `.byte 0xea; .long 0; .word ${S.TSS_B}`), 0x99);
  assert.equal(Number(rig.engine.gpr(0)), S.TSS_B);
  assert.equal(rig.bytes[GDT + S.TSS_A + 5], 0x89);
  assert.equal(rig.bytes[GDT + S.TSS_B + 5], 0x8b);
  assert.equal(run(protectedMachine(), `.byte 0xea; .long 0; .word ${S.TSS_A}`), 13);
});

test("an exception through a task gate has its error code on the new task's stack", () => {
  const rig = protectedMachine();
  taskB(rig, "pop eax; int 0x99");
  gate(rig, IDT + 13 * 8, S.TSS_B, 0, 0x85);
  assert.equal(run(rig, `mov ax, ${S.TSS_A}; mov ds, ax`), 0x99);
  assert.equal(rig.engine.gpr(0), BigInt(S.TSS_A));
  assert.equal(rig.view.getUint32(TSS_A + 0x20, true), AT.CODE + 4, "EIP of the fault is saved");
});

test("a bad segment of the new task faults in its context", () => {
  const rig = protectedMachine();
  taskB(rig, "nop", { 84: S.TSS_A });
  assert.equal(run(rig, `.byte 0xea; .long 0; .word ${S.TSS_B}`), 10);
  assert.deepEqual(stack(rig, 2), [S.TSS_A, 0x120000]);
  assert.equal(rig.engine.get(TR.selector), S.TSS_B);
  // Without a stack to deliver on it ends in a shutdown.
  const lost = protectedMachine();
  taskB(lost, "nop", { 80: 0 });
  assert.equal(lost.run(assemble(`.byte 0xea; .long 0; .word ${S.TSS_B}`, AT.CODE, 32)), EXIT.SHUTDOWN);
});

test("a handler task that is busy is #GP, and so #DF after another contributory exception", () => {
  const rig = protectedMachine();
  taskB(rig, "nop", { 84: S.TSS_A });
  gate(rig, IDT + 10 * 8, S.TSS_B, 0, 0x85);
  assert.equal(run(rig, `.byte 0xea; .long 0; .word ${S.TSS_B}`), 8);
});

test("the LDT", () => {
  const rig = protectedMachine();
  rig.view.setBigUint64(0x7000, 0x0040f20000001234n | (0x5n << 32n), true);
  assert.equal(run(rig, `mov ax, ${S.LDT}; lldt ax; mov ax, 7; mov es, ax; sldt bx; lsl ecx, ax; int 0x99`), 0x99);
  assert.equal(rig.engine.get(SEGMENTS[SREG.ES].base), 0x50000n);
  assert.equal(Number(rig.engine.gpr(3)) & 0xffff, S.LDT);
  assert.equal(rig.engine.gpr(1), 0x1234n);
  assert.equal(run(protectedMachine(), "mov ax, 7; mov es, ax"), 13, "no LDT");
});

test("SYSENTER and SYSEXIT", () => {
  const rig = protectedMachine();
  const target = 0x110000;
  rig.write(
    target,
    assemble("mov ebx, cs; mov esi, ss; mov ecx, 0x41000; mov edx, offset 0x110100; sysexit", target, 32),
  );
  rig.write(0x110100, assemble("mov edi, cs; mov ebp, ss; int 0x99", 0x110100, 32));
  // SYSEXIT wants user segments 16 and 24 bytes behind the kernel's.
  descriptor(rig, 0xa0, 0, 0xfffff, 0x9b, 0xc);
  descriptor(rig, 0xa8, 0, 0xfffff, 0x93, 0xc);
  descriptor(rig, 0xb0, 0, 0xfffff, 0xfb, 0xc);
  descriptor(rig, 0xb8, 0, 0xfffff, 0xf3, 0xc);
  const vector = run(
    rig,
    `xor edx, edx; mov ecx, 0x174; mov eax, 0xa0; wrmsr; inc ecx; mov eax, 0x50000; wrmsr; inc ecx; mov eax, ${target}; wrmsr
     ${TO_USER} sysenter`,
  );
  assert.equal(vector, 0x99);
  assert.equal(rig.engine.gpr(3), 0xa0n);
  assert.equal(rig.engine.gpr(6), 0xa8n);
  assert.equal(rig.engine.gpr(7), 0xb3n);
  assert.equal(rig.engine.gpr(5), 0xbbn);
  assert.equal(rig.engine.get(CPL), 0);
  assert.equal(rig.engine.get(RIP), BigInt(AT.HANDLERS + 0x99 * 16 + 1));
});
