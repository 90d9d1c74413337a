// SSE and MMX in the engine: when they may run, faults of their memory operands, exceptions of MXCSR, and upper registers.

import assert from "node:assert/strict";
import test, { beforeEach, describe } from "node:test";
import { CR0, CR0_BIT, CR4, CR4_BIT, FCW, type Field, FSW, FTW, MXCSR, VECTOR } from "../../../src/isa/state.ts";
import { AT, Rig } from "../../cpu/rig.ts";

const HLT = 0xf4;
const RBX = 3;
const RDI = 7;
const UNMAPPED = 0x8000000000;
/** A large page in RAM that is not present, and what is in the last bytes before it. */
const HOLE = 5 << 21;
const BEFORE_HOLE = 0x1122334455667788n;

const ADDPS = [0x0f, 0x58, 0xc1];
const MOVAPS_LOAD = [0x0f, 0x28, 0x03];
const MOVAPS_STORE = [0x0f, 0x29, 0x03];
const MOVUPS_LOAD = [0x0f, 0x10, 0x03];
const MOVUPS_STORE = [0x0f, 0x11, 0x03];
const PADDB_MMX_LOAD = [0x0f, 0xfc, 0x03];
const MOVQ_MMX_STORE = [0x0f, 0x7f, 0x03];
const MULSS_LOAD = [0xf3, 0x0f, 0x59, 0x03];
const DIVSD = [0xf2, 0x0f, 0x5e, 0xc1];

describe("SSE and MMX in the engine", () => {
  const rig = new Rig();
  const { engine } = rig;
  rig.view.setBigUint64(AT.PD + (HOLE >> 21) * 8, 0n, true);

  beforeEach(() => {
    rig.longMode();
    engine.setGpr(RBX, BigInt(AT.DATA));
    rig.view.setBigUint64(HOLE - 8, BEFORE_HOLE, true);
  });

  function change(field: Field, set: number, clear = 0): void {
    engine.set(field, ((Number(engine.get(field)) & ~clear) | set) >>> 0);
    engine.registersChanged();
  }

  /** Runs code; gives the vector that it raised, or -1. */
  function run(...code: number[][]): number {
    rig.run([...code.flat(), HLT]);
    return rig.caught();
  }

  /** Gives XMMn its value through memory. */
  function setXmm(n: number, low: bigint, high = 0n): number[] {
    const at = AT.DATA + 0x800 + n * 16;
    rig.view.setBigUint64(at, low, true);
    rig.view.setBigUint64(at + 8, high, true);
    const rex = n > 7 ? [0x44] : [];
    return [...rex, 0x0f, 0x10, 0x83 | ((n & 7) << 3), ...[0, 8, 16, 24].map((by) => ((at - AT.DATA) >> by) & 0xff)];
  }

  function storeXmm(n: number): number[] {
    const rex = n > 7 ? [0x44] : [];
    return [...rex, 0x0f, 0x11, 0x83 | ((n & 7) << 3), 0, 9 + (n >> 4), 0, 0];
  }

  function stored(): readonly [bigint, bigint] {
    return [rig.view.getBigUint64(AT.DATA + 0x900, true), rig.view.getBigUint64(AT.DATA + 0x908, true)];
  }

  test("#UD without CR4.OSFXSR or with CR0.EM, #NM with CR0.TS", () => {
    assert.equal(run(ADDPS), -1);
    change(CR4, 0, CR4_BIT.OSFXSR);
    change(CR0, CR0_BIT.TS);
    assert.equal(run(ADDPS), VECTOR.UD);
    change(CR4, CR4_BIT.OSFXSR);
    assert.equal(run(ADDPS), VECTOR.NM);
    change(CR0, CR0_BIT.EM);
    assert.equal(run(ADDPS), VECTOR.UD);
  });

  test("MMX does not need CR4.OSFXSR; a waiting x87 exception comes first", () => {
    change(CR4, 0, CR4_BIT.OSFXSR);
    assert.equal(run(PADDB_MMX_LOAD), -1);
    engine.set(FCW, 0x37e);
    engine.set(FSW, 0x8081);
    assert.equal(run(PADDB_MMX_LOAD), VECTOR.MF);
    change(CR0, CR0_BIT.TS);
    assert.equal(run(PADDB_MMX_LOAD), VECTOR.NM);
  });

  test("an MMX instruction that faults leaves TOP and the tags as they were", () => {
    engine.set(FSW, 3 << 11);
    engine.set(FTW, 0x18);
    engine.setGpr(RBX, BigInt(UNMAPPED));
    assert.equal(run(MOVQ_MMX_STORE), VECTOR.PF);
    assert.equal(Number(engine.get(FSW)), 3 << 11);
    assert.equal(Number(engine.get(FTW)), 0x18);
    engine.setGpr(RBX, BigInt(AT.DATA));
    assert.equal(run(MOVQ_MMX_STORE), -1);
    assert.equal(Number(engine.get(FSW)), 0);
    assert.equal(Number(engine.get(FTW)), 0xff);
  });

  test("#GP for 16-byte operands that are not aligned, but for MOVUPS", () => {
    engine.setGpr(RBX, BigInt(AT.DATA + 8));
    assert.equal(run(MOVAPS_LOAD), VECTOR.GP);
    assert.equal(run(MOVAPS_STORE), VECTOR.GP);
    assert.equal(run([0x0f, 0x58, 0x03]), VECTOR.GP);
    assert.equal(run(MOVUPS_LOAD), -1);
    assert.equal(run(MOVUPS_STORE), -1);
    // PCMPISTRI takes any address.
    assert.equal(run([0x66, 0x0f, 0x3a, 0x63, 0x03, 0x00]), -1);
  });

  test("a store over a page boundary into nothing changes nothing", () => {
    engine.setGpr(RBX, BigInt(HOLE - 8));
    assert.equal(run(MOVUPS_STORE), VECTOR.PF);
    assert.equal(rig.view.getBigUint64(HOLE - 8, true), BEFORE_HOLE);
  });

  test("unmasked exceptions raise #XM, or #UD without CR4.OSXMMEXCPT, and leave the destination", () => {
    const one = 0x3ff0000000000000n;
    change(MXCSR, 0, 1 << 9);
    const code = [setXmm(0, one, 7n), setXmm(1, 0n), DIVSD];
    assert.equal(run(...code), VECTOR.XM);
    assert.equal(Number(engine.get(MXCSR)) & 0x3f, 1 << 2);
    assert.equal(run(storeXmm(0)), -1);
    assert.deepEqual(stored(), [one, 7n]);
    change(CR4, 0, CR4_BIT.OSXMMEXCPT);
    assert.equal(run(...code), VECTOR.UD);
  });

  test("a page fault comes before a floating-point exception", () => {
    change(MXCSR, 0, 0x1f80);
    engine.setGpr(RBX, BigInt(UNMAPPED));
    assert.equal(run(MULSS_LOAD), VECTOR.PF);
    assert.equal(Number(engine.get(MXCSR)) & 0x3f, 0);
  });

  test("registers above 7, and their upper halves in scalar moves", () => {
    // movsd xmm9, xmm10 keeps the upper half; movsd xmm9, [rbx + 800h + 10 * 16] clears it.
    const merge = [0xf2, 0x45, 0x0f, 0x10, 0xca];
    assert.equal(run(setXmm(9, 1n, 2n), setXmm(10, 3n, 4n), merge, storeXmm(9)), -1);
    assert.deepEqual(stored(), [3n, 2n]);
    const load = [0xf2, 0x44, 0x0f, 0x10, 0x8b, 0xa0, 0x08, 0, 0];
    assert.equal(run(load, storeXmm(9)), -1);
    assert.deepEqual(stored(), [3n, 0n]);
  });

  test("MASKMOVDQU writes chosen bytes only, and nothing where one of them may not be written", () => {
    const code = [0x66, 0x0f, 0xf7, 0xc1];
    const values = setXmm(0, 0x0706050403020100n, 0x0f0e0d0c0b0a0908n);
    const mask = setXmm(1, 0x80000000_00800080n, 0x80ffn << 48n);
    engine.setGpr(RDI, BigInt(AT.DATA + 0x40));
    rig.bytes.fill(0xee, AT.DATA + 0x40, AT.DATA + 0x50);
    assert.equal(run(values, mask, code), -1);
    const expected = [0, 0xee, 2, 0xee, 0xee, 0xee, 0xee, 7, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 14, 15];
    assert.deepEqual([...rig.bytes.subarray(AT.DATA + 0x40, AT.DATA + 0x50)], expected);
    engine.setGpr(RDI, BigInt(HOLE - 8));
    assert.equal(run(values, mask, code), VECTOR.PF);
    assert.equal(rig.view.getBigUint64(HOLE - 8, true), BEFORE_HOLE);
  });

  test("RCPSS and RSQRTSS are as precise as promised", () => {
    const view = new DataView(new ArrayBuffer(4));
    const bits = (value: number): bigint => {
      view.setFloat32(0, value);
      return BigInt(view.getUint32(0));
    };
    const result = (opcode: number, source: bigint): number => {
      assert.equal(run(setXmm(1, source), [0xf3, 0x0f, opcode, 0xc1], storeXmm(0)), -1);
      view.setUint32(0, Number(stored()[0] & 0xffffffffn));
      return view.getFloat32(0);
    };
    for (const value of [1, 3, 0.1, 12345.678, 2 ** -100, 2 ** 100]) {
      assert.ok(Math.abs(result(0x53, bits(value)) * Math.fround(value) - 1) <= 1.5 * 2 ** -12);
      assert.ok(Math.abs(result(0x52, bits(value)) * Math.sqrt(Math.fround(value)) - 1) <= 1.5 * 2 ** -12);
    }
    assert.equal(result(0x53, 0x80000000n), Number.NEGATIVE_INFINITY);
    assert.equal(result(0x53, 1n), Number.POSITIVE_INFINITY);
    assert.equal(result(0x53, 0xff800000n), -0);
    assert.equal(result(0x53, bits(2 ** 127)), 0);
    assert.equal(result(0x52, 0x80000000n), Number.NEGATIVE_INFINITY);
    assert.equal(result(0x52, 0x7f800000n), 0);
    assert.equal(result(0x52, 0x80000001n), Number.NEGATIVE_INFINITY);
    assert.ok(Number.isNaN(result(0x52, bits(-1))));
    result(0x52, 0xffa00001n);
    assert.equal(stored()[0] & 0xffffffffn, 0xffe00001n);
    assert.equal(Number(engine.get(MXCSR)), 0x1f80);
  });
});
