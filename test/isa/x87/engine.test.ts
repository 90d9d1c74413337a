// x87 instructions in the engine: what the comparison with the host leaves out - memory images in each mode, pointers, and exceptions
// that are delivered (Intel SDM Vol. 1 8.1.8 to 8.1.10, 8.7; Vol. 3A 2.5).

import assert from "node:assert/strict";
import { test } from "node:test";
import { CR0, CR0_BIT, FCW, FDP, FDS, FIP, FOP, FSW, FTW, VECTOR, X87_BASE } from "../../../src/isa/state.ts";
import { AT, Rig, SELECTOR } from "../../cpu/rig.ts";

const HLT = 0xf4;
const RBX = 3;
const FNINIT = [0xdb, 0xe3];
const FLD1 = [0xd9, 0xe8];
const FLDZ = [0xd9, 0xee];
const FLDPI = [0xd9, 0xeb];
/** Unmasks division by zero: FLDCW [rbx]. */
const FLDCW_RBX = [0xd9, 0x2b];
const FWAIT = [0x9b];

const rig = new Rig();

function long(...code: number[][]): void {
  rig.longMode();
  rig.engine.setGpr(RBX, BigInt(AT.DATA));
  rig.run([...code.flat(), HLT]);
}

function register(n: number): string {
  const low = rig.engine.get({ name: "", offset: X87_BASE + 16 * n, type: "i64", saved: true });
  const high = rig.engine.get({ name: "", offset: X87_BASE + 16 * n + 8, type: "i64", saved: true });
  return `${BigInt(high).toString(16)}:${BigInt.asUintN(64, BigInt(low)).toString(16)}`;
}

test("a sum through the stack", () => {
  // FLD1; FLDPI; FADDP; FSTP m80
  long(FNINIT, FLD1, FLDPI, [0xde, 0xc1], [0xdb, 0x3b]);
  assert.equal(rig.view.getBigUint64(AT.DATA, true).toString(16), "8487ed5110b4611a");
  assert.equal(rig.view.getUint16(AT.DATA + 8, true), 0x4001);
  assert.equal(rig.engine.get(FTW), 0);
  assert.equal(Number(rig.engine.get(FIP)), AT.CODE + 8);
  assert.equal(Number(rig.engine.get(FDP)), AT.DATA);
  assert.equal(rig.engine.get(FDS), SELECTOR.DATA);
});

test("an unmasked exception waits for the next instruction and leaves operands alone", () => {
  rig.view.setUint16(AT.DATA, 0x37b, true);
  // FLD1; FLDZ; FDIVP raises ZE; FNSTSW AX does not wait, FWAIT does.
  long(FNINIT, FLDCW_RBX, FLD1, FLDZ, [0xde, 0xf9], [0xdf, 0xe0], FWAIT);
  assert.equal(rig.caught(), VECTOR.MF);
  assert.equal(rig.engine.gpr(0) & 0xffffn, 0xb084n);
  assert.equal(rig.engine.get(FTW), 0xc0);
  assert.equal(rig.engine.get(FOP), 0x6f9);
  assert.equal(Number(rig.engine.get(FIP)), AT.CODE + 8);
});

test("FOP is found behind prefixes", () => {
  rig.view.setUint16(AT.DATA, 0x37b, true);
  rig.view.setUint32(AT.DATA + 4, 0, true);
  // FDIV m32 with FS and REX prefixes
  long(FNINIT, FLDCW_RBX, FLD1, [0x64, 0x48, 0xd8, 0x73, 0x04]);
  assert.equal(rig.engine.get(FOP), 0x073);
  assert.equal(Number(rig.engine.get(FSW)) & 0x84, 0x84);
});

test("with CR0.NE = 0 nothing is raised", () => {
  rig.view.setUint16(AT.DATA, 0x37b, true);
  rig.longMode();
  rig.engine.set(CR0, Number(rig.engine.get(CR0)) & ~CR0_BIT.NE);
  rig.engine.registersChanged();
  rig.engine.setGpr(RBX, BigInt(AT.DATA));
  rig.run([...FNINIT, ...FLDCW_RBX, ...FLD1, ...FLDZ, 0xde, 0xf9, ...FWAIT, HLT]);
  assert.equal(rig.caught(), -1);
});

test("#NM by CR0.TS and EM, for FWAIT by MP and TS", () => {
  const withCr0 = (set: number, clear: number, code: number[]): number => {
    rig.longMode();
    rig.engine.set(CR0, (Number(rig.engine.get(CR0)) | set) & ~clear);
    rig.engine.registersChanged();
    rig.run([...code, HLT]);
    return rig.caught();
  };
  assert.equal(withCr0(CR0_BIT.TS, 0, FLD1), VECTOR.NM);
  assert.equal(withCr0(CR0_BIT.EM, 0, FNINIT), VECTOR.NM);
  assert.equal(withCr0(CR0_BIT.TS, 0, FWAIT), VECTOR.NM);
  assert.equal(withCr0(CR0_BIT.TS, CR0_BIT.MP, FWAIT), -1);
  assert.equal(withCr0(CR0_BIT.EM, 0, FWAIT), -1);
});

/** A state with a value of each tag class, as FNSAVE stores it. */
function sample(layout: 16 | 32): Uint8Array {
  const unit = layout / 8;
  const bytes = new Uint8Array(7 * unit + 80);
  const view = new DataView(bytes.buffer);
  // TOP = 6: ST(0) is R6 (valid), R7 zero, R0 special, R1 empty, R2 valid, R3 special, R4 and R5 empty.
  const fields = [0x027f, 0x7020, 0b01_00_11_11_10_00_11_10, 0x1234, 0, 0x5678, 0];
  fields.forEach((field, n) => {
    if (layout === 32) view.setUint32(n * 4, field | (n < 3 ? 0xffff0000 : 0), true);
    else view.setUint16(n * 2, field, true);
  });
  const values: [bigint, number][] = [
    [0xc000000000000000n, 0x4000],
    [0n, 0x8000],
    [0x8000000000000000n, 0x7fff],
    [1n, 1],
    [0x8000000000000001n, 0xbfff],
    [0x0000000000000001n, 0],
    [0x123n, 0],
    [0x456n, 0x7fff],
  ];
  values.forEach(([sig, se], n) => {
    view.setBigUint64(7 * unit + 10 * n, sig, true);
    view.setUint16(7 * unit + 10 * n + 8, se, true);
  });
  return bytes;
}

const FRSTOR_RBX = [0xdd, 0x23];
/** FNSAVE [rbx + 512] */
const FNSAVE_RBX = [0xdd, 0xb3, 0x00, 0x02, 0x00, 0x00];

for (const layout of [16, 32] as const) {
  test(`FRSTOR and FNSAVE in the ${layout}-bit protected layout`, () => {
    const image = sample(layout);
    const prefix = layout === 16 ? [0x66] : [];
    rig.write(AT.DATA, image);
    rig.write(AT.DATA + 512, new Uint8Array(image.length + 1).fill(0xee));
    long([...prefix, ...FRSTOR_RBX], [...prefix, ...FNSAVE_RBX]);
    const expected = image.slice();
    // The upper half of DS is reserved and stored as ones.
    if (layout === 32) expected.fill(0xff, 26, 28);
    assert.deepEqual(rig.bytes.slice(AT.DATA + 512, AT.DATA + 512 + image.length), expected);
    assert.equal(rig.bytes[AT.DATA + 512 + image.length], 0xee);
    assert.equal(rig.engine.get(FCW), 0x37f);
    assert.equal(rig.engine.get(FSW), 0);
    assert.equal(rig.engine.get(FTW), 0);
    assert.equal(register(6), "4000:c000000000000000");
  });
}

test("FNSTENV masks all exceptions after it has stored the control word", () => {
  rig.view.setUint16(AT.DATA, 0x340, true);
  long(FNINIT, FLDCW_RBX, [0xd9, 0x73, 0x10]);
  assert.equal(rig.view.getUint32(AT.DATA + 0x10, true), 0xffff0340);
  assert.equal(rig.engine.get(FCW), 0x37f);
});

test("an image that reaches into a missing page changes nothing", () => {
  // The page directory maps 1 GiB; below its end by 100 bytes.
  rig.longMode();
  rig.engine.setGpr(RBX, (1n << 30n) - 100n);
  rig.run([...FNINIT, ...FLD1, 0xdd, 0x33, HLT]);
  assert.equal(rig.caught(), VECTOR.PF);
  assert.equal(rig.engine.get(FTW), 0x80);
});

test("the layouts of real-address mode hold linear addresses", () => {
  rig.realMode();
  rig.engine.setGpr(RBX, 0x500n);
  // FNINIT; FLD dword [bx]; FNSTENV [bx + 16]; FNSTENV [bx + 48] with 32 bits; FLDENV [bx + 48]; FNSTENV [bx + 80]
  const code = [
    0xdb,
    0xe3,
    0xd9,
    0x07,
    0xd9,
    0x77,
    0x10,
    0x66,
    0xd9,
    0x77,
    0x30,
    0x66,
    0xd9,
    0x67,
    0x30,
    0xd9,
    0x77,
    0x50,
    HLT,
  ];
  rig.write(0x10000, code);
  rig.run([], 0);
  const word = (at: number): number => rig.view.getUint16(0x500 + at, true);
  const dword = (at: number): number => rig.view.getUint32(0x500 + at, true);
  assert.deepEqual(
    [6, 8, 10, 12].map((n) => word(16 + n)),
    [2, 0x1000, 0x500, 0],
  );
  assert.deepEqual(
    [12, 16, 20, 24].map((n) => dword(48 + n)),
    [0xffff0002, 0x1000, 0xffff0500, 0],
  );
  assert.deepEqual(
    [6, 8, 10, 12].map((n) => word(80 + n)),
    [2, 0x1000, 0x500, 0],
  );
});

test("FCOMI and FCMOV work on the flags", () => {
  // FLD1; FLDPI; FCOMI ST(1): greater; FCMOVNBE ST(0), ST(1)
  long(FNINIT, FLD1, FLDPI, [0xdb, 0xf1], [0xdb, 0xd1]);
  assert.equal(register(6), "3fff:8000000000000000");
});
