// Events, returns and system calls in 64-bit mode, to the letter of SDM Vol. 3A 6.14 and Vol. 2.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../../src/isa/exit.ts";
import {
  ACTIVITY,
  CPL,
  CR2,
  LSTAR,
  NMI_BLOCKED,
  RFLAGS,
  RIP,
  SEGMENTS,
  SFMASK,
  SHADOW,
  SREG,
  STAR,
} from "../../../src/isa/state.ts";
import { INJECT } from "../../../src/vmm/engine.ts";
import { AT, SELECTOR } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";
import { execute, machine, quad } from "./machine.ts";

const TOP = AT.EXCEPTION_STACK_TOP;

test("a page fault of user code pushes six quadwords on the stack of ring 0", () => {
  const rig = machine().longMode(3);
  rig.engine.setRflags(0x246);
  rig.run(assemble("nop; mov rax, [0x7fffff000]; nop", AT.CODE));
  assert.equal(rig.caught(), 14);
  assert.equal(rig.engine.get(CR2), 0x7fffff000n);
  assert.equal(quad(rig, TOP - 8), BigInt(SELECTOR.USER_DATA));
  assert.equal(quad(rig, TOP - 16), BigInt(AT.STACK_TOP));
  // RF is set in the image of a fault.
  assert.equal(quad(rig, TOP - 24), 0x10246n);
  assert.equal(quad(rig, TOP - 32), BigInt(SELECTOR.USER_CODE64));
  assert.equal(quad(rig, TOP - 40), BigInt(AT.CODE + 1));
  assert.equal(quad(rig, TOP - 48), 4n);
  assert.equal(rig.engine.gpr(4), BigInt(TOP - 48));
  assert.equal(rig.engine.get(SEGMENTS[SREG.SS].selector), 0);
  assert.equal(rig.engine.get(CPL), 0);
  assert.equal((rig.engine.get(RFLAGS) as number) & 0x200, 0, "an interrupt gate clears IF");
});

test("an event at the same level aligns the stack and keeps SS", () => {
  const rig = machine().longMode();
  rig.engine.setGpr(4, BigInt(AT.STACK_TOP - 5));
  rig.run(assemble("int 0x21", AT.CODE));
  assert.equal(rig.caught(), 0x21);
  const top = (AT.STACK_TOP - 5) & ~15;
  assert.equal(rig.engine.gpr(4), BigInt(top - 40));
  assert.equal(quad(rig, top - 16), BigInt(AT.STACK_TOP - 5));
  assert.equal(quad(rig, top - 40), BigInt(AT.CODE + 2), "INT returns behind itself");
  assert.equal(rig.engine.get(SEGMENTS[SREG.SS].selector), SELECTOR.DATA);
});

test("IST gives a stack of its own", () => {
  const rig = machine().longMode();
  rig.bytes[AT.IDT + 3 * 16 + 4] = 2;
  rig.view.setBigUint64(AT.TSS + 0x2c, 0x51238n, true);
  rig.run(assemble("int3", AT.CODE));
  assert.equal(rig.caught(), 3);
  assert.equal(rig.engine.gpr(4), BigInt(0x51230 - 40));
});

test("INT n of user code through a gate of ring 0 is #GP with the gate's index", () => {
  const rig = machine().longMode(3);
  rig.bytes[AT.IDT + 0x21 * 16 + 5] = 0x8e;
  rig.run(assemble("int 0x21", AT.CODE));
  assert.equal(rig.caught(), 13);
  assert.equal(quad(rig, TOP - 48), BigInt(0x21 * 8 + 2));
  assert.equal(quad(rig, TOP - 40), BigInt(AT.CODE));
});

test("faults while a gate is used carry EXT and the right selector", () => {
  const rig = machine().longMode();
  const gate = AT.IDT + 6 * 16;
  // Not present: #NP with IDT and EXT; a #UD is benign, so no double fault.
  rig.bytes[gate + 5] = 0x0e;
  rig.run(assemble("ud2", AT.CODE));
  assert.equal(rig.caught(), 11);
  assert.equal(quad(rig, Number(rig.engine.gpr(4))), BigInt(6 * 8 + 2 + 1));
  rig.longMode();
  rig.bytes[gate + 5] = 0x8e;
  rig.view.setUint16(gate + 2, SELECTOR.DATA, true);
  rig.run(assemble("ud2", AT.CODE));
  assert.equal(rig.caught(), 13);
  assert.equal(quad(rig, Number(rig.engine.gpr(4))), BigInt(SELECTOR.DATA + 1));
});

test("a contributory exception during another is #DF, during #DF a shutdown", () => {
  const rig = machine().longMode();
  rig.bytes[AT.IDT + 13 * 16 + 5] = 0x0e;
  const divide = assemble("mov ax, 0xffff; mov ds, ax", AT.CODE);
  rig.run(divide);
  assert.equal(rig.caught(), 8);
  assert.equal(quad(rig, Number(rig.engine.gpr(4))), 0n);
  rig.longMode();
  rig.bytes[AT.IDT + 8 * 16 + 5] = 0x0e;
  assert.equal(rig.run(divide), EXIT.SHUTDOWN);
  assert.equal(rig.engine.get(ACTIVITY), 2);
});

test("IRETQ goes to user code and back through a gate", () => {
  const rig = machine().longMode();
  rig.run(
    assemble(
      `push ${SELECTOR.USER_DATA}; push 0x40000; push 0x3202; push ${SELECTOR.USER_CODE64}; lea rax, [rip + user]; push rax; iretq
       user: mov ebx, cs; mov ecx, ss; pushfq; pop rdx; int 0x80`,
      AT.CODE,
    ),
  );
  assert.equal(rig.caught(), 0x80);
  assert.equal(rig.engine.gpr(3), BigInt(SELECTOR.USER_CODE64));
  assert.equal(rig.engine.gpr(1), BigInt(SELECTOR.USER_DATA));
  assert.equal(rig.engine.gpr(2), 0x3202n);
  assert.equal(quad(rig, TOP - 16), 0x40000n);
  // The data segments of ring 0 were out of reach for user code.
  assert.equal(rig.engine.get(SEGMENTS[SREG.DS].selector), 0);
});

test("IRETQ to compatibility mode and IRETD from there", () => {
  const rig = machine().longMode();
  rig.run(
    assemble(
      `push ${SELECTOR.USER_DATA}; push 0x40000; push 0x202; push ${SELECTOR.USER_CODE32}; lea rax, [rip + user]; push rax; iretq
       .code32
       user: mov eax, 0x12345678; push eax; inc esp; dec esp; pop ebx; mov ax, ${SELECTOR.USER_DATA}; mov ds, ax
       pushfd; push cs; push offset next; iretd
       next: mov ecx, cs; int 0x80`,
      AT.CODE,
    ),
  );
  assert.equal(rig.caught(), 0x80);
  assert.equal(rig.engine.gpr(3), 0x12345678n);
  assert.equal(rig.engine.gpr(1), BigInt(SELECTOR.USER_CODE32));
  assert.equal(quad(rig, TOP - 16), 0x40000n);
});

test("SYSCALL and SYSRET", () => {
  const rig = machine().longMode(3);
  const kernel = 0x110000;
  rig.write(kernel, assemble("mov ebx, cs; mov edx, ss; pushfq; pop rsi; sysretq", kernel));
  rig.engine.set(STAR, (BigInt(SELECTOR.USER_CODE32 & ~3) << 48n) | (BigInt(SELECTOR.CODE64) << 32n));
  rig.engine.set(LSTAR, kernel);
  rig.engine.set(SFMASK, 0x300n);
  rig.engine.setRflags(0x247);
  rig.run(assemble("syscall; back: mov edi, cs; mov ebp, ss; pushfq; pop r8; int 0x80", AT.CODE));
  assert.equal(rig.caught(), 0x80);
  assert.equal(rig.engine.gpr(1), BigInt(AT.CODE + 2));
  assert.equal(rig.engine.gpr(11), 0x247n);
  assert.equal(rig.engine.gpr(3), BigInt(SELECTOR.CODE64));
  assert.equal(rig.engine.gpr(2), BigInt(SELECTOR.DATA));
  assert.equal(rig.engine.gpr(6), 0x47n);
  assert.equal(rig.engine.gpr(7), BigInt(SELECTOR.USER_CODE64));
  assert.equal(rig.engine.gpr(5), BigInt(SELECTOR.USER_DATA));
  assert.equal(rig.engine.gpr(8), 0x247n);
});

test("SYSRET to a non-canonical address is #GP in ring 0", () => {
  const rig = machine().longMode();
  rig.engine.setGpr(1, 1n << 47n);
  rig.run(assemble("sysretq", AT.CODE));
  assert.equal(rig.caught(), 13);
});

test("far returns, jumps and calls in 64-bit code", () => {
  const rig = machine().longMode();
  execute(
    rig,
    `push ${SELECTOR.CODE64}; lea rax, [rip + one]; push rax; retfq
     one: mov ebx, cs
     sub rsp, 16; mov dword ptr [rsp], offset two; mov word ptr [rsp+4], ${SELECTOR.CODE64}
     call fword ptr [rsp]; mov esi, 7; hlt
     two: mov edi, [rsp]; mov edx, [rsp+4]; .byte 0xcb`,
  );
  assert.equal(rig.engine.gpr(3), BigInt(SELECTOR.CODE64));
  assert.equal(rig.engine.gpr(2), BigInt(SELECTOR.CODE64));
  assert.equal(rig.engine.gpr(6), 7n);
  assert.equal(rig.engine.gpr(4), BigInt(AT.STACK_TOP - 16));
});

test("an interrupt waits for the instruction behind STI and behind MOV SS", () => {
  const rig = machine().longMode();
  rig.engine.setPendingEvents(1);
  const reason = rig.run(assemble("cli; sti; inc eax; inc eax; hlt", AT.CODE));
  assert.equal(reason, EXIT.INTERRUPT_WINDOW);
  assert.equal(rig.engine.gpr(0), 1n);
  assert.equal(rig.engine.get(SHADOW), 0);
  rig.engine.inject(INJECT.INTERRUPT, 0x31);
  rig.engine.setPendingEvents(0);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.caught(), 0x31);
  rig.longMode();
  rig.engine.setRflags(0x202);
  rig.engine.setGpr(0, 0n);
  rig.engine.setGpr(3, BigInt(SELECTOR.DATA));
  rig.write(AT.CODE, assemble("mov ss, bx; inc eax; inc eax; hlt", AT.CODE));
  rig.engine.set(RIP, AT.CODE);
  rig.engine.setPendingEvents(0);
  rig.engine.run(1);
  assert.equal(rig.engine.get(SHADOW), 2);
});

test("NMIs are blocked from delivery to IRET", () => {
  const rig = machine().longMode();
  rig.write(AT.HANDLERS + 2 * 16, assemble("hlt; iretq", 0));
  rig.run(assemble("nop; hlt", AT.CODE));
  rig.engine.set(RIP, AT.CODE);
  rig.engine.inject(INJECT.NMI, 2);
  assert.equal(rig.engine.get(NMI_BLOCKED), 1);
  assert.equal(rig.engine.canInject(INJECT.NMI), false);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.engine.get(NMI_BLOCKED), 0);
  assert.equal(rig.engine.get(RIP), BigInt(AT.CODE + 2));
});
