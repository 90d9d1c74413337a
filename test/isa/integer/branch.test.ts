// Near branches: targets, return addresses, counters, and faults that leave everything as it was (SDM Vol. 2A-2D: CALL, JMP, Jcc, LOOP, RET).

import assert from "node:assert/strict";
import { test } from "node:test";
import { FLAG, RIP, SREG } from "../../../src/isa/state.ts";
import { AT } from "../../cpu/rig.ts";
import { Machine, RAX, RBX, RCX, RSP } from "./machine.ts";

const CODE = AT.CODE;
const CANONICAL_END = 0x0000800000000000n;

test("Jcc takes each condition where its flags say so", () => {
  const m = new Machine().long();
  const holds = (cc: number, f: number): boolean => {
    const [c, z, s, o, p] = [FLAG.CF, FLAG.ZF, FLAG.SF, FLAG.OF, FLAG.PF].map((bit) => (f & bit) !== 0);
    const base = [o, c, z, c || z, s, p, s !== o, z || s !== o][cc >> 1];
    return base !== ((cc & 1) === 1);
  };
  for (const f of [0, FLAG.CF, FLAG.ZF, FLAG.SF, FLAG.OF, FLAG.PF, FLAG.SF | FLAG.OF, FLAG.ZF | FLAG.CF, 0x8d5]) {
    for (let cc = 0; cc < 16; cc++) {
      m.flags(f).run([0x70 + cc, 2, 0xeb, 0xfe], 20);
      assert.equal(m.rip, CODE + (holds(cc, f) ? 4 : 2), `short form of condition ${cc}, flags ${f.toString(16)}`);
      m.flags(f).run([0x0f, 0x80 + cc, 2, 0, 0, 0, 0xeb, 0xfe], 20);
      assert.equal(m.rip, CODE + (holds(cc, f) ? 8 : 6), `near form of condition ${cc}, flags ${f.toString(16)}`);
    }
  }
});

test("CALL and RET, near: relative, by register, by memory, with parameters released", () => {
  const m = new Machine().long();
  // call +3; jmp self; (target) mov eax, 7; ret
  m.run([0xe8, 2, 0, 0, 0, 0xeb, 0xfe, 0xb8, 7, 0, 0, 0, 0xc3]);
  assert.equal(m.rip, CODE + 5);
  assert.equal(m.gpr(RAX), 7n);
  assert.equal(m.gpr(RSP), BigInt(AT.STACK_TOP));
  assert.equal(m.rig.view.getBigUint64(AT.STACK_TOP - 8, true), BigInt(CODE + 5));
  // call rbx; jmp self; (target) ret 16
  m.set({ [RSP]: AT.STACK_TOP, [RBX]: CODE + 4 }).run([0xff, 0xd3, 0xeb, 0xfe, 0xc2, 16, 0]);
  assert.equal(m.rip, CODE + 2);
  assert.equal(m.gpr(RSP), BigInt(AT.STACK_TOP + 16));
  // jmp [rbx]
  m.rig.view.setBigUint64(AT.DATA, BigInt(CODE + 0x40), true);
  m.rig.write(CODE + 0x40, [0xeb, 0xfe]);
  m.set({ [RBX]: AT.DATA }).run([0xff, 0x23]);
  assert.equal(m.rip, CODE + 0x40);
});

test("a target that is not canonical faults at the branch, with the stack pointer unchanged", () => {
  for (const [name, code] of [
    ["jmp rbx", [0xff, 0xe3]],
    ["call rbx", [0xff, 0xd3]],
    ["ret", [0xc3]],
  ] as const) {
    const m = new Machine().long(3);
    m.rig.view.setBigUint64(AT.STACK_TOP, CANONICAL_END, true);
    m.set({ [RBX]: CANONICAL_END }).run(code);
    assert.deepEqual(m.caught, { vector: 13, error: 0, rip: CODE, rsp: AT.STACK_TOP }, name);
  }
});

test("a target beyond the limit of the code segment faults at the branch", () => {
  const m = new Machine().compatible();
  m.segment(SREG.CS, 0xc09b, 0x1fffff);
  m.set({ [RBX]: 0x200000 }).run([0xff, 0xd3]);
  assert.deepEqual(m.caught, { vector: 13, error: 0, rip: CODE, rsp: AT.STACK_TOP });
  m.compatible()
    .segment(SREG.CS, 0xc09b, 0x1fffff)
    .set({ [RSP]: AT.STACK_TOP });
  // call to 0x200000 + 0x10
  m.run([0xe8, ...le32(0x200010 - CODE - 5)]);
  assert.deepEqual(m.caught, { vector: 13, error: 0, rip: CODE, rsp: AT.STACK_TOP });
});

test("an operand size of 16 bits cuts the target to 16 bits", () => {
  const m = new Machine().compatible();
  m.rig.write(0x1234, [0xeb, 0xfe]);
  // 66 call ax pushes 16 bits
  m.set({ [RAX]: 0x5678_1234 }).run([0x66, 0xff, 0xd0]);
  assert.equal(m.rip, 0x1234);
  assert.equal(m.gpr(RSP), BigInt(AT.STACK_TOP - 2));
  m.rig.write(0x0107, [0xeb, 0xfe]);
  // 66 jmp short: the target is taken modulo 2^16
  m.compatible().run([0x66, 0xe9, 3, 1]);
  assert.equal(m.rip, (CODE + 0x107) & 0xffff);
});

test("in 16-bit code the instruction pointer wraps at 64 KiB", () => {
  const m = new Machine();
  m.rig.realMode();
  m.rig.write(0x10000 + 0x20, [0xeb, 0xfe]);
  m.rig.write(0x10000 + 0xfff0, [0xe9, 0x2d, 0x00]);
  m.engine.set(RIP, 0xfff0);
  m.engine.run(20);
  assert.equal(m.rip, 0x20);
});

test("LOOP and JCXZ count at the address size", () => {
  const m = new Machine().long();
  // inc eax; loop back
  m.set({ [RAX]: 0, [RCX]: 5 }).run([0xff, 0xc0, 0xe2, 0xfc]);
  assert.deepEqual([m.gpr(RAX), m.gpr(RCX)], [5n, 0n]);
  // 67: ECX counts, and its write clears the upper half
  m.set({ [RAX]: 0, [RCX]: 0x1_0000_0003n }).run([0xff, 0xc0, 0x67, 0xe2, 0xfb]);
  assert.deepEqual([m.gpr(RAX), m.gpr(RCX)], [3n, 0n]);
  m.set({ [RCX]: 0x1_0000_0000n }).run([0xe3, 2, 0xeb, 0xfe]);
  assert.equal(m.rip, CODE + 2);
  m.run([0x67, 0xe3, 2, 0xeb, 0xfe]);
  assert.equal(m.rip, CODE + 5);
  // LOOPE and LOOPNE look at ZF
  for (const [opcode, f, left] of [
    [0xe1, FLAG.ZF, 0n],
    [0xe1, 0, 6n],
    [0xe0, FLAG.ZF, 6n],
    [0xe0, 0, 0n],
  ] as const) {
    m.flags(f)
      .set({ [RCX]: 7 })
      .run([opcode, 0xfe]);
    assert.equal(m.gpr(RCX), left, `${opcode.toString(16)} flags ${f}`);
  }
  // With a 16-bit address size only CX changes.
  const legacy = new Machine().compatible();
  legacy.set({ [RCX]: 0xabcd0002 }).run([0x67, 0xe2, 0xfd]);
  assert.equal(legacy.gpr(RCX), 0xabcd0000n);
});

function le32(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);
}
