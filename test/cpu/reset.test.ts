// What power-on and INIT leave of a processor: SDM Vol. 3A table 10-1 ("IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT").
// EFER is not in the table: without paging its LMA cannot stay set, and all of it is cleared, as AMD has it (APM Vol. 2 table 14-1).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import {
  CR0,
  CR0_BIT,
  CR4,
  CR4_BIT,
  DR7,
  type Field,
  GPR,
  GPR_COUNT,
  RFLAGS,
  RIP,
  SEGMENTS,
  SREG,
  STATE_FIELDS,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
} from "../../src/isa/state.ts";
import { AT, Rig } from "./rig.ts";

const SIGNATURE = 0x000306a9n;
/** Access rights: present, read/write (or code), accessed; LDT; busy 32-bit TSS. */
const [DATA, CODE, LDT, TSS] = [0x93, 0x9b, 0x82, 0x8b];

/** What holds after both. All that is neither here nor among KEPT is zero. */
const SET: { readonly [name: string]: number | bigint } = {
  rip: 0xfff0n,
  rflags: 2,
  // ZF clear, in the form of the lazy flags.
  "flags.result": 1n,
  ...Object.fromEntries(
    ["es", "cs", "ss", "ds", "fs", "gs"].flatMap((name) => [
      [`${name}.limit`, 0xffff],
      [`${name}.attr`, name === "cs" ? CODE : DATA],
    ]),
  ),
  "cs.selector": 0xf000,
  "cs.base": 0xffff0000n,
  "ldtr.limit": 0xffff,
  "ldtr.attr": LDT,
  "tr.limit": 0xffff,
  "tr.attr": TSS,
  "gdtr.limit": 0xffff,
  "idtr.limit": 0xffff,
  dr6: 0xffff0ff0,
  dr7: 0x400,
  "pending.vector": 0xffffffff,
  "pending.error": 0xffffffff,
};

/** Unchanged by INIT: x87, MXCSR, the time stamp counter, MTRRs and all other MSRs, XCR0 (SDM Vol. 1 13.3). What power-on makes of those. */
const KEPT: { readonly [name: string]: number | bigint } = {
  xcr0: 1,
  mxcsr: 0x1f80,
  "x87.fcw": 0x40,
  "x87.fsw": 0,
  "x87.ftw": 0,
  "x87.fop": 0,
  "x87.fip": 0n,
  "x87.fcs": 0,
  "x87.fdp": 0n,
  "x87.fds": 0,
  "tsc.offset": 0n,
  "msr.pat": 0x0007040600070406n,
  "msr.miscEnable": 0x1801n,
  ...Object.fromEntries(
    [
      ...["star", "lstar", "cstar", "sfmask", "kernelGsBase", "tscAux", "sysenterCs", "sysenterEsp", "sysenterEip"],
      ...["tscAdjust", "mtrrDefType", "specCtrl"],
      ...Array.from({ length: 11 }, (_, n) => `mtrrFixed${n}`),
      ...Array.from({ length: 16 }, (_, n) => `mtrrVariable${n}`),
    ].map((name) => [`msr.${name}`, 0n]),
  ),
};

/** A value for a register that no reset gives it. */
function odd(field: Field, n: number): number | bigint {
  return field.type === "i64" ? 0x0123456700000000n + BigInt(n) : 0x1234000 + n;
}

/** Fills all there is, and gives a view of the vCPU's memory. */
function filled(rig: Rig, cr0: number): DataView {
  const { engine } = rig;
  STATE_FIELDS.forEach((field, n) => {
    engine.set(field, odd(field, n));
  });
  engine.set(CR0, cr0);
  for (let n = 0; n < GPR_COUNT; n++) engine.setGpr(n, 0x7777n + BigInt(n));
  const view = new DataView(engine.memory.buffer);
  for (let n = 0; n < 16; n++) view.setBigUint64(VECTOR_BASE + n * VECTOR_STRIDE + 8, BigInt(n + 1), true);
  for (let n = 0; n < 8; n++) view.setBigUint64(X87_BASE + n * 16, BigInt(n + 1), true);
  return view;
}

function generalRegisters(rig: Rig): void {
  for (let n = 0; n < GPR_COUNT; n++) assert.equal(rig.engine.gpr(n), n === GPR.RDX ? SIGNATURE : 0n, `register ${n}`);
}

test("INIT clears the registers of the table, and keeps CD, NW, x87, XMM, MXCSR, TSC and MSRs", () => {
  const cache = (CR0_BIT.CD | CR0_BIT.NW) >>> 0;
  for (const kept of [0, CR0_BIT.CD, cache]) {
    const rig = new Rig();
    const view = filled(rig, (~cache | kept) >>> 0);
    rig.engine.reset("init");
    generalRegisters(rig);
    STATE_FIELDS.forEach((field, n) => {
      if (!field.saved) return;
      const expected = Object.hasOwn(KEPT, field.name)
        ? odd(field, n)
        : field === CR0
          ? (CR0_BIT.ET | kept) >>> 0
          : (SET[field.name] ?? (field.type === "i64" ? 0n : 0));
      assert.equal(rig.engine.get(field), expected, field.name);
    });
    for (let n = 0; n < 16; n++)
      assert.equal(view.getBigUint64(VECTOR_BASE + n * VECTOR_STRIDE + 8, true), BigInt(n + 1));
    for (let n = 0; n < 8; n++) assert.equal(view.getBigUint64(X87_BASE + n * 16, true), BigInt(n + 1));
  }
});

test("power-on sets all of it", () => {
  const rig = new Rig();
  const view = filled(rig, 0x80000001);
  rig.engine.reset("power-on");
  generalRegisters(rig);
  for (const field of STATE_FIELDS) {
    if (!field.saved) continue;
    const expected =
      field === CR0 ? 0x60000010 : (KEPT[field.name] ?? SET[field.name] ?? (field.type === "i64" ? 0n : 0));
    assert.equal(rig.engine.get(field), expected, field.name);
  }
  for (let n = 0; n < 16; n++) assert.equal(view.getBigUint64(VECTOR_BASE + n * VECTOR_STRIDE + 8, true), 0n);
  for (let n = 0; n < 8; n++) assert.equal(view.getBigUint64(X87_BASE + n * 16, true), 0n);
});

test("after INIT in 64-bit mode with paging, breakpoints and a step due, 16-bit code runs from physical addresses", () => {
  const rig = new Rig().longMode();
  // mov [0x200000], rax; hlt: something in the TLB and the caches of code of the old mode.
  assert.equal(rig.run([0x48, 0x89, 0x04, 0x25, 0, 0, 0x20, 0, 0xf4]), EXIT.HLT);
  rig.engine.set(DR7, 0x401);
  rig.engine.set(CR4, (rig.engine.get(CR4) as number) | CR4_BIT.SMEP);
  rig.engine.set(RFLAGS, 0x302);
  rig.engine.reset("init");
  rig.engine.set(SEGMENTS[SREG.CS].selector, AT.CODE >> 4);
  rig.engine.set(SEGMENTS[SREG.CS].base, AT.CODE);
  rig.engine.registersChanged();
  // mov ax, 0x4321; mov [0x7000], ax; hlt
  rig.write(AT.CODE, [0xb8, 0x21, 0x43, 0xa3, 0x00, 0x70, 0xf4]);
  rig.engine.set(RIP, 0);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.engine.gpr(GPR.RAX), 0x4321n);
  assert.equal(rig.view.getUint16(0x7000, true), 0x4321);
  assert.equal(rig.engine.get(RIP), 7n);
});
