// MSRs by the features that bring them (SDM Vol. 4 table 2-2, "if CPUID..."), and the bits of each that may be written.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCpuModel } from "../../../src/cpu/model.ts";
import { EXIT } from "../../../src/isa/exit.ts";
import { SPEC_CTRL } from "../../../src/isa/state.ts";
import type { Rig } from "../../cpu/rig.ts";
import { machine } from "./machine.ts";

const GP = 13;
const NONE = -1;
const rigs = new Map<string, Rig>();

/** The opcodes of MOV with an immediate to the registers that RDMSR and WRMSR use: the same in 32- and 64-bit code. */
const ECX = 0xb9;
const EAX = 0xb8;
const EDX = 0xba;
const RDMSR = [0x0f, 0x32];
const WRMSR = [0x0f, 0x30];
const HLT = 0xf4;

function move(register: number, value: number): number[] {
  return [register, ...new Uint8Array(new Uint32Array([value]).buffer)];
}

/** The vector that an access raises on a model, or -1. Without long mode in the model, in protected mode without an IDT, where what is raised shuts
 *  the processor down: there it is taken for #GP. */
function access(model: string, msr: number, instructions: readonly number[]): number {
  const rig = rigs.get(model) ?? machine(parseCpuModel(model));
  rigs.set(model, rig);
  const long = parseCpuModel(model).features.has("lm");
  if (long) rig.longMode();
  else rig.protectedMode();
  const reason = rig.run([...move(ECX, msr), ...instructions, HLT]);
  if (long) return rig.caught();
  return reason === EXIT.HLT ? NONE : GP;
}
const reads = (model: string, msr: number): number => access(model, msr, RDMSR);
const writes = (model: string, msr: number, low = 0, high = 0): number =>
  access(model, msr, [...move(EAX, low), ...move(EDX, high), ...WRMSR]);

const MTRRS = [0x2ff, 0x250, 0x258, 0x259, ...Array.from({ length: 8 }, (_, n) => 0x268 + n)].concat(
  Array.from({ length: 16 }, (_, n) => 0x200 + n),
);
const LONG = [0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102];

test("an MSR is there with the feature that brings it, and not without", () => {
  const cases: readonly (readonly [on: string, off: string, msrs: readonly number[]])[] = [
    ["max", "max,-tsc_adjust", [0x3b]],
    ["max", "max,-spec_ctrl,-stibp,-ssbd,-bhi_ctrl", [0x48]],
    ["max", "max,-rdtscp,-rdpid", [0xc0000103]],
    ["max,-rdpid", "x86-64-v2,-rdtscp", [0xc0000103]],
    ["x86-64", "x86-64,-mtrr", MTRRS],
    ["x86-64", "x86-64,-pat", [0x277]],
    ["x86-64", "x86-64,-sep", [0x174, 0x175, 0x176]],
    ["pentium3", "pentium", [0x174, 0x175, 0x176, 0x277, 0x17a, ...MTRRS]],
    ["x86-64", "pentium3", [...LONG]],
    ["pentium", "pentium,-tsc", [0x10]],
    ["pentium", "pentium,-mce", [0, 1]],
  ];
  for (const [on, off, msrs] of cases) {
    for (const msr of msrs) {
      const name = `${msr.toString(16)} with ${on}, without ${off}`;
      // What reset leaves in PAT and the default type is no zero, but zero may be written to all of them.
      assert.equal(reads(on, msr), NONE, name);
      assert.equal(writes(on, msr), NONE, name);
      assert.equal(reads(off, msr), GP, name);
      assert.equal(writes(off, msr), GP, name);
    }
  }
  assert.equal(reads("max", 0x10a), NONE);
  assert.equal(writes("max", 0x10a), GP, "read-only");
  assert.equal(reads("max,-arch_capabilities", 0x10a), GP);
  for (const msr of [0xfe, 0x179]) {
    assert.equal(reads("pentium3", msr), NONE);
    assert.equal(writes("pentium3", msr), GP, "read-only");
    assert.equal(reads("pentium", msr), GP);
  }
  assert.equal(reads("x86-64-v2,-rdtscp,+rdpid", 0xc0000103), NONE, "RDPID alone brings IA32_TSC_AUX");
});

test("without the feature the host is asked, as for any MSR that is not there; with it, it is not", () => {
  for (const [model, asked] of [
    ["x86-64,-tsc_adjust", ["read 3b", "write 3b"]],
    ["x86-64", []],
  ] as const) {
    const calls: string[] = [];
    const rig = machine(parseCpuModel(model), {
      readMsr: (msr) => {
        calls.push(`read ${msr.toString(16)}`);
        return [0, 0];
      },
      writeMsr: (msr) => {
        calls.push(`write ${msr.toString(16)}`);
        return true;
      },
    }).longMode();
    assert.equal(rig.run([...move(ECX, 0x3b), ...RDMSR, ...WRMSR, HLT]), EXIT.HLT);
    assert.equal(rig.caught(), NONE);
    assert.deepEqual(calls, asked);
  }
});

test("IA32_EFER is there with long mode, NX or SYSCALL, and has the bits of each", () => {
  const EFER = 0xc0000080;
  assert.equal(reads("pentium3", EFER), GP);
  assert.equal(reads("pentium3,+nx", EFER), NONE);
  assert.equal(writes("pentium3,+nx", EFER, 0x800), NONE);
  for (const bits of [1, 0x100, 0x400, 2]) assert.equal(writes("pentium3,+nx", EFER, bits), GP, `bit ${bits}`);
  assert.equal(writes("pentium3,+syscall", EFER, 1), NONE);
  assert.equal(writes("pentium3,+syscall", EFER, 0x800), GP);
  assert.equal(writes("x86-64", EFER, 0xd01), NONE, "LMA is read-only");
});

test("IA32_SPEC_CTRL and IA32_PRED_CMD have the bits that features bring", () => {
  const only = (names: string): string => `x86-64,-spec_ctrl,-stibp,-ssbd,-bhi_ctrl${names}`;
  const BITS = { spec_ctrl: 1, stibp: 2, ssbd: 4, bhi_ctrl: 0x400 };
  for (const [feature, bit] of Object.entries(BITS)) {
    const model = only(`,+${feature}`);
    assert.equal(reads(model, 0x48), NONE, feature);
    for (const other of [...Object.values(BITS), 8, 0x80]) {
      // STIBP is ignored where there is IBRS alone.
      const fine = other === bit || (feature === "spec_ctrl" && other === BITS.stibp);
      assert.equal(writes(model, 0x48, other), fine ? NONE : GP, `${feature}: ${other}`);
      if (fine) assert.equal(rigs.get(model)?.engine.get(SPEC_CTRL), other === bit ? BigInt(bit) : 0n);
    }
    assert.equal(writes(model, 0x48, 0, 1), GP, "bit 32");
  }
  assert.equal(writes("x86-64", 0x49, 1), NONE);
  assert.equal(writes("x86-64", 0x49, 2), GP);
  assert.equal(writes("x86-64", 0x49, 0, 1), GP);
  assert.equal(reads("x86-64", 0x49), GP, "write-only");
  assert.equal(writes(only(",+stibp"), 0x49, 1), GP);
});

test("what MTRRs, IA32_MISC_ENABLE and the machine check registers hold", () => {
  /** What is read, after something has been written. */
  const value = (msr: number, ...written: readonly (readonly [low: number, high: number])[]): bigint => {
    const program = written.flatMap(([low, high]) => [...move(EAX, low), ...move(EDX, high), ...WRMSR]);
    assert.equal(access("max", msr, [...program, ...RDMSR]), NONE);
    const engine = rigs.get("max")?.engine;
    return engine === undefined ? 0n : (engine.gpr(2) << 32n) | engine.gpr(0);
  };
  // SDM Vol. 3A 11.11.2: default type, fixed ranges, base and mask.
  assert.equal(value(0x2ff, [0xc06, 0]), 0xc06n);
  for (const bits of [0x100, 0x10, 0x1000, 2, 3, 7]) assert.equal(writes("max", 0x2ff, bits), GP, `default ${bits}`);
  assert.equal(value(0x250, [0x06050401, 0x00060606]), 0x0006060606050401n);
  for (const type of [2, 3, 7, 8]) assert.equal(writes("max", 0x26f, 0, type << 24), GP, `fixed type ${type}`);
  assert.equal(value(0x200, [0x80000006, 0x3fff]), 0x3fff80000006n);
  for (const [low, high] of [
    [0x106, 0],
    [2, 0],
    [6, 0x4000],
  ])
    assert.equal(writes("max", 0x200, low, high), GP);
  assert.equal(value(0x20f, [0x80000800, 0x3fff]), 0x3fff80000800n);
  for (const [low, high] of [
    [0x400, 0],
    [6, 0],
    [0x800, 0x4000],
  ])
    assert.equal(writes("max", 0x20f, low, high), GP);
  // Fast strings can be turned off; that there is no branch trace storage and no PEBS cannot be changed.
  assert.equal(value(0x1a0), 0x1801n);
  assert.equal(value(0x1a0, [0x10000, 0]), 0x11800n);
  assert.equal(value(0x179), 0n, "no machine check banks");
  assert.equal(value(0x17a, [4, 0]), 0n);
  assert.equal(reads("max", 0x400), GP, "MC0_CTL");
  assert.equal(value(0x1d9, [1, 0]), 0n, "no branch records");
});
