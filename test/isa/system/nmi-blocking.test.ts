// Blocking of NMIs: from when one is taken to the next IRET, whether or not that faults (SDM Vol. 3A 6.7.1).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../../src/isa/exit.ts";
import { ACTIVITY, CPL, FLAG, IDTR_LIMIT, NMI_BLOCKED, RIP, SEGMENTS, SREG } from "../../../src/isa/state.ts";
import { INJECT } from "../../../src/vmm/engine.ts";
import { AT, type Rig, SELECTOR } from "../../cpu/rig.ts";
import { machine } from "./machine.ts";

const NMI = 2;
const SHUTDOWN = 2;
const IRETQ = [0x48, 0xcf];
const IRETD = [0xcf];

/** Puts what IRET pops on the stack of 64-bit code: RIP, CS, RFLAGS, RSP, SS. */
function frame(rig: Rig, ...values: readonly number[]): void {
  const top = AT.STACK_TOP - values.length * 8;
  values.forEach((value, n) => {
    rig.view.setBigUint64(top + n * 8, BigInt(value), true);
  });
  rig.engine.setGpr(4, BigInt(top));
}

const GOOD = [AT.CODE + 0x100, SELECTOR.CODE64, 2, AT.STACK_TOP, SELECTOR.DATA];

test("IRET in 64-bit mode ends it, whatever it raises", () => {
  const cases: readonly (readonly [name: string, vector: number, values: readonly number[], flags?: number])[] = [
    ["returns", -1, GOOD],
    ["a null CS", 13, [AT.CODE, 0, 2, AT.STACK_TOP, SELECTOR.DATA]],
    ["CS beyond the GDT", 13, [AT.CODE, 0x400, 2, AT.STACK_TOP, SELECTOR.DATA]],
    ["RIP that is not canonical", 13, [2 ** 52, SELECTOR.CODE64, 2, AT.STACK_TOP, SELECTOR.DATA]],
    ["SS that is not writable", 13, [AT.CODE, SELECTOR.CODE64, 2, AT.STACK_TOP, SELECTOR.CODE64]],
    ["NT", 13, GOOD, FLAG.NT | 2],
  ];
  for (const [name, vector, values, flags = 2] of cases) {
    const rig = machine().longMode();
    frame(rig, ...values);
    rig.engine.setRflags(flags);
    rig.engine.set(NMI_BLOCKED, 1);
    rig.write(AT.CODE + 0x100, [0xf4]);
    assert.equal(rig.run(IRETQ), EXIT.HLT, name);
    assert.equal(rig.caught(), vector, name);
    assert.equal(rig.engine.get(NMI_BLOCKED), 0, name);
  }
  // The stack is where nothing is mapped.
  const rig = machine().longMode();
  rig.engine.setGpr(4, 2n ** 40n);
  rig.engine.set(NMI_BLOCKED, 1);
  rig.view.setUint8(AT.IDT + 14 * 16 + 4, 1);
  rig.view.setBigUint64(AT.TSS + 0x24, BigInt(AT.EXCEPTION_STACK_TOP), true);
  assert.equal(rig.run(IRETQ), EXIT.HLT);
  assert.equal(rig.caught(), 14);
  assert.equal(rig.engine.get(NMI_BLOCKED), 0);
});

test("IRET in the other modes ends it, whatever it raises", () => {
  // Real-address mode: EIP above FFFFH. What handles #GP is at 0000:0600.
  const real = machine().realMode();
  real.view.setUint32(13 * 4, 0x600, true);
  real.write(0x600, [0xf4]);
  real.engine.set(IDTR_LIMIT, 0x3ff);
  real.engine.setGpr(4, 0x7000n);
  real.view.setUint32(0x7000, 0x10000, true);
  real.engine.set(NMI_BLOCKED, 1);
  real.write(0x10000, [0x66, ...IRETD]);
  real.engine.set(RIP, 0);
  assert.equal(real.engine.run(100), EXIT.HLT);
  assert.equal(real.engine.get(RIP), 0x601n, "#GP");
  assert.equal(real.engine.get(NMI_BLOCKED), 0, "real-address mode");
  // Protected mode and virtual-8086 mode with IOPL below 3; these rigs have no IDT.
  for (const virtual of [false, true]) {
    const rig = machine().protectedMode();
    if (virtual) {
      for (const segment of SEGMENTS) rig.segment(segment, 0, 0xf3, 0xffff);
      rig.segment(SEGMENTS[SREG.CS], 0x1000, 0xf3, 0xffff, 0x10000);
      rig.engine.setRflags(FLAG.VM | 2);
      rig.engine.set(CPL, 3);
      rig.engine.registersChanged();
    }
    rig.engine.set(NMI_BLOCKED, 1);
    rig.write(0x10000, IRETD);
    rig.write(AT.CODE, IRETD);
    rig.engine.set(RIP, virtual ? 0 : AT.CODE);
    assert.equal(rig.engine.run(100), EXIT.SHUTDOWN);
    assert.equal(rig.engine.get(NMI_BLOCKED), 0, virtual ? "virtual-8086 mode" : "protected mode");
  }
});

test("an NMI whose delivery faults is blocked in the handler of what that raised, until its IRET", () => {
  const rig = machine().longMode();
  // The gate is not present: #NP, whose handler drops the error code and returns.
  rig.view.setUint8(AT.IDT + NMI * 16 + 5, 0x6e);
  rig.write(AT.HANDLERS + 11 * 16, [0xf4, 0x48, 0x83, 0xc4, 8, ...IRETQ]); // hlt; add rsp, 8; iretq
  rig.write(AT.CODE, [0xf4]);
  rig.engine.set(RIP, AT.CODE);
  assert.ok(rig.engine.canInject(INJECT.NMI));
  assert.ok(rig.engine.inject(INJECT.NMI, NMI));
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.caught(), 11);
  assert.ok(!rig.engine.canInject(INJECT.NMI));
  rig.engine.set(ACTIVITY, 0);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.engine.get(RIP), BigInt(AT.CODE + 1), "back");
  assert.ok(rig.engine.canInject(INJECT.NMI));
});

test("an NMI that cannot be delivered at all shuts the processor down; an interrupt and INT 2 block nothing", () => {
  const rig = machine().protectedMode();
  assert.ok(!rig.engine.inject(INJECT.NMI, NMI));
  assert.equal(rig.engine.get(ACTIVITY), SHUTDOWN);
  const other = machine().longMode();
  assert.ok(other.engine.inject(INJECT.INTERRUPT, NMI));
  assert.ok(other.engine.canInject(INJECT.NMI));
  assert.equal(other.longMode().run([0xcd, NMI]), EXIT.HLT);
  assert.equal(other.caught(), NMI);
  assert.ok(other.engine.canInject(INJECT.NMI));
});
