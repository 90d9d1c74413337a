// The stack outside what user-mode comparison with the host reaches: stack widths, privilege of the flags, faults in mid-instruction
// (SDM Vol. 1 6.2; Vol. 2A-2B: ENTER, LEAVE, POP, POPF, PUSH, PUSHA, PUSHF).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../../src/isa/exit.ts";
import { CR0, FLAG, PENDING_VECTOR, RIP, SEGMENTS, SREG } from "../../../src/isa/state.ts";
import { AT } from "../../cpu/rig.ts";
import { Machine, RAX, RBP, RBX, RCX, RDX, RSP } from "./machine.ts";

const CODE = AT.CODE;
const SMALL_STACK = 0x0093;
const BIG_STACK = 0xc093;

test("SS.B chooses between SP and ESP; 16 bits wrap and keep the upper half", () => {
  const m = new Machine().compatible().segment(SREG.SS, SMALL_STACK, 0xffff, 0x40000);
  m.set({ [RSP]: 0xabcd_0002, [RAX]: 0x1122_3344 }).run([0x66, 0x50, 0x50]);
  assert.equal(m.gpr(RSP), 0xabcd_fffcn);
  assert.equal(m.rig.view.getUint16(0x40000, true), 0x3344);
  assert.equal(m.rig.view.getUint32(0x4fffc, true), 0x11223344);
  m.run([0x5b, 0x66, 0x59]);
  assert.equal(m.gpr(RSP), 0xabcd_0002n);
  assert.deepEqual([m.gpr(RBX), m.gpr(RCX) & 0xffffn], [0x11223344n, 0x3344n]);
});

test("a push that the stack segment does not hold raises #SS(0) and leaves the stack pointer", () => {
  const m = new Machine().compatible().segment(SREG.SS, BIG_STACK, 0x1ffff);
  m.set({ [RSP]: 0x20002 }).run([0x50]);
  assert.equal(m.caught?.vector, 12);
  assert.deepEqual([m.caught?.error, m.caught?.rip, m.caught?.rsp], [0, CODE, 0x20002]);
  // Expand-down: offsets above the limit are the valid ones.
  const down = new Machine().compatible().segment(SREG.SS, 0xc097, 0xffff);
  down.set({ [RSP]: 0x10004 }).run([0x50]);
  assert.equal(down.gpr(RSP), 0x10000n);
  down.run([0x50]);
  assert.deepEqual([down.caught?.vector, down.caught?.rsp], [12, 0x10000]);
});

test("64-bit stack addresses that are not canonical raise #SS(0)", () => {
  const m = new Machine().long(3);
  m.set({ [RSP]: 0x0000_8000_0000_0008n }).run([0x50]);
  assert.deepEqual([m.caught?.vector, m.caught?.error, m.caught?.rip], [12, 0, CODE]);
  assert.equal(m.rig.view.getBigUint64(Number(m.gpr(RSP)) + 32, true), 0x0000_8000_0000_0008n);
});

test("POP forms a memory address with the stack pointer incremented, and a fault takes that back", () => {
  const m = new Machine().long();
  m.rig.view.setBigUint64(AT.STACK_TOP, 0x1234_5678_9abcn, true);
  // pop [rsp+8]
  m.run([0x8f, 0x44, 0x24, 8]);
  assert.equal(m.rig.view.getBigUint64(AT.STACK_TOP + 16, true), 0x1234_5678_9abcn);
  assert.equal(m.gpr(RSP), BigInt(AT.STACK_TOP + 8));
  // 66 pop [rsp]: 16 bits
  m.rig.view.setUint16(AT.STACK_TOP, 0xbeef, true);
  m.set({ [RSP]: AT.STACK_TOP }).run([0x66, 0x8f, 0x04, 0x24]);
  assert.equal(m.rig.view.getUint16(AT.STACK_TOP + 2, true), 0xbeef);
  const fault = new Machine().long(3).unmap(0x400000);
  fault.set({ [RBX]: 0x400000 }).run([0x8f, 0x03]);
  assert.deepEqual(fault.caught, { vector: 14, error: 6, rip: CODE, rsp: AT.STACK_TOP });
  // pop rsp takes the value, push rsp the old pointer
  const own = new Machine().long();
  own.run([0x54, 0x5c]);
  assert.equal(own.gpr(RSP), BigInt(AT.STACK_TOP));
});

test("ENTER copies frame pointers by nesting level; LEAVE undoes it; a fault at the new top changes nothing", () => {
  const m = new Machine().long();
  const frame = AT.DATA + 0x100;
  for (let n = 1; n <= 3; n++) m.rig.view.setBigUint64(frame - 8 * n, BigInt(0xf00 + n), true);
  m.set({ [RBP]: frame }).run([0xc8, 0x20, 0, 4]);
  const top = AT.STACK_TOP;
  const words = [1, 2, 3, 4, 5].map((n) => m.rig.view.getBigUint64(top - 8 * n, true));
  assert.deepEqual(words, [BigInt(frame), 0xf01n, 0xf02n, 0xf03n, BigInt(top - 8)]);
  assert.equal(m.gpr(RBP), BigInt(top - 8));
  assert.equal(m.gpr(RSP), BigInt(top - 40 - 0x20));
  m.run([0xc9]);
  assert.deepEqual([m.gpr(RSP), m.gpr(RBP)], [BigInt(top), BigInt(frame)]);
  const fault = new Machine().long(3).unmap(0x400000);
  fault.set({ [RSP]: 0x600010, [RBP]: 1 }).run([0xc8, 0x00, 0x10, 0]);
  assert.equal(fault.caught?.vector, 14);
  assert.deepEqual([fault.caught?.rsp, fault.gpr(RBP)], [0x600010, 1n]);
});

test("PUSHA stores the stack pointer as it was, POPA skips it", () => {
  const m = new Machine().compatible();
  m.set({ 0: 0, 1: 1, 2: 2, 3: 3, 5: 5, 6: 6, 7: 7 }).run([0x60]);
  const words = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => m.rig.view.getUint32(AT.STACK_TOP - 4 * n, true));
  assert.deepEqual(words, [0, 1, 2, 3, AT.STACK_TOP, 5, 6, 7]);
  m.set({ 0: 9, 1: 9, 7: 9 }).run([0x61]);
  assert.deepEqual([m.gpr(0), m.gpr(1), m.gpr(7), m.gpr(RSP)], [0n, 1n, 7n, BigInt(AT.STACK_TOP)]);
});

test("POPF changes IOPL at CPL 0 only, IF where CPL is not above IOPL", () => {
  const everything = 0xffffffffn;
  const popped = (m: Machine, code: readonly number[]): number => {
    m.rig.view.setBigUint64(AT.STACK_TOP, everything, true);
    m.set({ [RSP]: AT.STACK_TOP });
    m.rig.write(CODE, [...code, 0xeb, 0xfe]);
    m.engine.set(RIP, CODE);
    m.engine.run(1);
    return m.engine.rflags();
  };
  const user = ARITHMETIC | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.AC | FLAG.ID | 2;
  assert.equal(popped(new Machine().long(0).flags(0), [0x9d]), user | FLAG.IF | FLAG.IOPL);
  assert.equal(popped(new Machine().long(3).flags(0), [0x9d]), user);
  assert.equal(popped(new Machine().long(3).flags(FLAG.IF), [0x9d]), user | FLAG.IF);
  assert.equal(popped(new Machine().long(3).flags(FLAG.IOPL), [0x9d]), user | FLAG.IF | FLAG.IOPL);
  // 16 bits: nothing above them
  assert.equal(popped(new Machine().long(3).flags(FLAG.ID), [0x66, 0x9d]), (user & 0xffff) | FLAG.ID);
});

const ARITHMETIC = 0x8d5;

test("PUSHF shows neither RF nor VM", () => {
  const m = new Machine().long();
  m.flags(FLAG.RF | FLAG.CF | FLAG.AC).run([0x9c]);
  assert.equal(m.rig.view.getBigUint64(AT.STACK_TOP - 8, true), BigInt(FLAG.CF | FLAG.AC | 2));
});

test("in virtual-8086 mode PUSHF and POPF need IOPL 3", () => {
  for (const [opcode, iopl, faults] of [
    [0x9c, 0, true],
    [0x9d, 2 << 12, true],
    [0x9c, FLAG.IOPL, false],
    [0x9d, FLAG.IOPL, false],
  ] as const) {
    const m = new Machine();
    m.rig.protectedMode();
    for (const segment of SEGMENTS) m.rig.segment(segment, 0x1000, 0xf3, 0xffff, 0x10000);
    m.flags(FLAG.VM | iopl).set({ [RSP]: 0x8000, [RDX]: 0 });
    m.engine.set(CR0, 0x31);
    m.engine.registersChanged();
    m.rig.write(0x10000, [opcode, 0xeb, 0xfe]);
    m.engine.set(RIP, 0);
    const reason = m.engine.run(50);
    assert.equal(reason === EXIT.SHUTDOWN, faults, `${opcode.toString(16)} with IOPL ${iopl >> 12}`);
    assert.equal(Number(m.engine.get(PENDING_VECTOR)) === 0xffffffff || faults, true);
  }
});

test("a read-modify-write or POP through a read-only segment faults before anything changes", () => {
  for (const code of [
    [0x8f, 0x03], // pop [ebx]
    [0x0f, 0xab, 0x0b], // bts [ebx], ecx
    [0x0f, 0xc7, 0x0b], // cmpxchg8b [ebx]
    [0x01, 0x0b], // add [ebx], ecx
  ]) {
    const m = new Machine().compatible().segment(SREG.DS, 0xc091, 0xffffffff);
    m.set({ [RBX]: AT.DATA, [RCX]: 1 }).run(code);
    assert.deepEqual([m.caught?.vector, m.caught?.rip, m.caught?.rsp], [13, CODE, AT.STACK_TOP], code.join(" "));
  }
});
