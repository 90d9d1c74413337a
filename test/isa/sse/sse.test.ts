// Every row of the SSE and MMX tables against the host's processor: registers, flags, MXCSR, MMX state, memory and exceptions.

import assert from "node:assert/strict";
import test, { before, describe } from "node:test";
import { VAR } from "../../../src/cpu/layout.ts";
import { MMX } from "../../../src/isa/mmx/mmx.ts";
import { SSE } from "../../../src/isa/sse/sse.ts";
import {
  ARITHMETIC_FLAGS,
  CR0,
  CR0_BIT,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  FCF,
  type Field,
  FRES,
  FSW,
  FTW,
  FX,
  MXCSR,
  PENDING_VECTOR,
  SEG_ATTR,
  SEGMENTS,
  SREG,
  VECTOR,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
} from "../../../src/isa/state.ts";
import { buildHost, RECORD, runHost, SIGNAL } from "./host.ts";
import { buildRig, type Form, IMMEDIATE, OPERAND, type Rig } from "./rig.ts";

/** For a longer search: states a form, and which forms. */
const CASES = Number(process.env.SKEP_SSE_CASES ?? 60);
const FORMS = new RegExp(process.env.SKEP_SSE_FORMS ?? "");
/** Approximations differ between processors. */
const APPROXIMATE = /^R(SQRT|CP)/;

/** A small generator of numbers that are the same in every run (xorshift32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const SINGLES = [
  0, 1, 0x007fffff, 0x00800000, 0x00800001, 0x3f800000, 0x3f800001, 0x3fffffff, 0x40000000, 0x4b000000, 0x4b000001,
  0x4effffff, 0x4f000000, 0x5f000000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fc12345, 0x3f000000,
  0x3fc00000, 0x33800000, 0x34000000, 0x00400000, 0x7e800000, 0x1f800000, 0x20000000, 0x40490fdb,
];
const DOUBLES = [
  0n,
  1n,
  0x000fffffffffffffn,
  0x0010000000000000n,
  0x0010000000000001n,
  0x3ff0000000000000n,
  0x3ff0000000000001n,
  0x3fffffffffffffffn,
  0x4000000000000000n,
  0x41dfffffffc00000n,
  0x41dfffffffe00000n,
  0x41e0000000000000n,
  0x43e0000000000000n,
  0x43dfffffffffffffn,
  0x7fefffffffffffffn,
  0x7ff0000000000000n,
  0x7ff0000000000001n,
  0x7ff8000000000000n,
  0x7ff8123456789abcn,
  0x3fe0000000000000n,
  0x3ff8000000000000n,
  0x3ca0000000000000n,
  0x3cb0000000000000n,
  0x0008000000000000n,
  0x47efffffe0000000n,
  0x47f0000000000000n,
  0x3810000000000000n,
  0x380fffffffffffffn,
  0x36a0000000000000n,
  0x3690000000000000n,
  0x400921fb54442d18n,
  0x1ff0000000000000n,
];

const MXCSRS = [0x1f80, 0x1fa0, 0x1fa0, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0x9fe0, 0xffff, 0x7fa0, 0x1fbf];

function fill(bytes: DataView, at: number, length: number, next: (below: number) => number, kind: number): void {
  for (let i = at; i < at + length; i += 8) {
    const flip = next(2) === 0;
    if (kind === 0) {
      for (let k = 0; k < 8; k += 4) {
        const sign = next(2) << 31;
        const bits = next(3) === 0 ? next(2 ** 31) : SINGLES[next(SINGLES.length)] + (next(4) === 0 ? next(3) : 0);
        bytes.setUint32(i + k, (bits ^ sign) >>> 0, true);
      }
    } else if (kind === 1) {
      const near = BigInt(next(4) === 0 ? next(3) : 0);
      const any = (BigInt(next(2 ** 31)) << 32n) | BigInt(next(2 ** 32));
      const bits = next(3) === 0 ? any : DOUBLES[next(DOUBLES.length)] + near;
      bytes.setBigUint64(i, flip ? bits | (1n << 63n) : bits, true);
    } else if (kind === 2) {
      // Numbers of one magnitude, as most programs have them.
      bytes.setFloat64(i, (next(2000) - 1000) / (1 + next(7)), true);
    } else if (kind === 3) {
      for (let k = 0; k < 8; k += 4) bytes.setFloat32(i + k, (next(2000) - 1000) / (1 + next(7)), true);
    } else if (kind === 4) {
      for (let k = 0; k < 8; k++) bytes.setUint8(i + k, [0, 1, 0x7f, 0x80, 0xff, next(256)][next(6)]);
    } else bytes.setBigUint64(i, BigInt(next(2 ** 32)) | (BigInt(next(2 ** 32)) << 32n), true);
  }
}

function makeRecord(
  record: DataView,
  form: Form,
  next: (below: number) => number,
  mxcsr: number,
  immediate: number,
): void {
  const fx = RECORD.FX;
  record.setUint16(fx, 0x37f, true);
  const top = next(8);
  record.setUint16(fx + 2, top << 11, true);
  record.setUint8(fx + 4, next(256));
  record.setUint32(fx + 24, mxcsr, true);
  record.setUint32(fx + 28, 0xffff, true);
  const kind = next(6);
  for (let n = 0; n < 8; n++) {
    fill(record, fx + 32 + 16 * n, 8, next, kind);
    record.setUint16(fx + 40 + 16 * n, 0x3fff, true);
  }
  for (let n = 0; n < 3; n++) fill(record, fx + 160 + 16 * n, 16, next, kind);
  fill(record, RECORD.MEMORY, 32, next, kind);
  // Shift counts in registers are small in half of all cases.
  if (next(2) === 0 && /^PS[LR]/.test(form.name)) {
    for (const at of [fx + 160 + 32, RECORD.MEMORY]) record.setBigUint64(at, BigInt(next(70)), true);
    for (let n = 0; n < 8; n++) record.setBigUint64(fx + 32 + 16 * n, BigInt(next(70)), true);
  }
  for (const at of [RECORD.RAX, RECORD.RCX, RECORD.RDX, RECORD.RBX, RECORD.RSI]) fill(record, at, 8, next, next(2) + 4);
  if (next(2) === 0) {
    record.setBigInt64(RECORD.RAX, BigInt(next(40) - 20), true);
    record.setBigInt64(RECORD.RDX, BigInt(next(40) - 20), true);
  }
  record.setBigUint64(RECORD.RFLAGS, 0x202n | BigInt(next(2 ** 12) & ARITHMETIC_FLAGS), true);
  const code = form.immediate ? [...form.bytes, immediate] : form.bytes;
  code.forEach((byte, i) => {
    record.setUint8(RECORD.CODE + i, byte);
  });
  record.setUint32(RECORD.LENGTH, code.length, true);
}

function put(rig: Rig, field: Field, value: number): void {
  if (field.type === "i64") rig.cpu.setBigInt64(field.offset, BigInt(value), true);
  else rig.cpu.setInt32(field.offset, value, true);
}

function copy(from: DataView, at: number, to: DataView, where: number, length: number): void {
  for (let i = 0; i < length; i++) to.setUint8(where + i, from.getUint8(at + i));
}

const NO_ENTRY = 0x3f00;
const GPRS = [RECORD.RAX, RECORD.RCX, RECORD.RDX, RECORD.RBX] as const;

function physical(fx: DataView, at: number, n: number): number {
  const top = (fx.getUint16(at + 2, true) >> 11) & 7;
  return (top + n) & 7;
}

function load(rig: Rig, record: DataView, immediate: number): void {
  put(rig, CR0, CR0_BIT.PE | CR0_BIT.NE | CR0_BIT.PG);
  put(rig, CR4, CR4_BIT.OSFXSR | CR4_BIT.OSXMMEXCPT);
  put(rig, EFER, EFER_BIT.LMA);
  put(rig, SEGMENTS[SREG.CS].attr, SEG_ATTR.L);
  // No TLB entry and no mask: each lookup in a helper goes the slow way.
  rig.cpu.setUint32(VAR.TLB_WRITE, NO_ENTRY, true);
  rig.cpu.setBigInt64(NO_ENTRY, 1n << 40n, true);
  for (let log = 0; log < 5; log++) rig.cpu.setBigInt64(VAR.TLB_MASK + 8 * log, -1n, true);
  put(rig, FSW, record.getUint16(2, true));
  put(rig, FTW, record.getUint8(4));
  put(rig, MXCSR, record.getUint32(24, true));
  put(rig, PENDING_VECTOR, -1);
  for (let n = 0; n < 8; n++) copy(record, 32 + 16 * n, rig.cpu, X87_BASE + 16 * physical(record, 0, n), 16);
  for (let n = 0; n < 3; n++) copy(record, 160 + 16 * n, rig.cpu, VECTOR_BASE + VECTOR_STRIDE * n, 16);
  GPRS.forEach((at, n) => {
    copy(record, at, rig.cpu, 8 * n, 8);
  });
  copy(record, RECORD.RSI, rig.cpu, 8 * 6, 8);
  copy(record, RECORD.MEMORY, rig.ram, OPERAND, 32);
  rig.cpu.setBigUint64(8 * 7, BigInt(OPERAND), true);
  rig.cpu.setInt32(IMMEDIATE, immediate, true);
  // Flags as setArithmeticFlags lays them out.
  const flags = Number(record.getBigUint64(RECORD.RFLAGS, true));
  const bit = (n: number): number => (flags >> n) & 1;
  rig.cpu.setBigInt64(FRES.offset, BigInt(bit(6) ^ 1), true);
  rig.cpu.setBigInt64(FX.offset, (BigInt(bit(11) ^ bit(0)) << 63n) | BigInt(flags & 16), true);
  put(rig, FCF, bit(0) | (bit(7) << 8) | ((bit(6) ^ bit(2)) << 16));
}

function flagsOf(rig: Rig): number {
  const result = rig.cpu.getBigInt64(FRES.offset, true);
  const carries = rig.cpu.getBigInt64(FX.offset, true);
  const carry = rig.cpu.getInt32(FCF.offset, true);
  const low = Number(BigInt.asUintN(8, result)) ^ ((carry >> 16) & 0xff);
  let parity = 1;
  for (let n = 0; n < 8; n++) parity ^= (low >> n) & 1;
  const sign = Number(BigInt.asUintN(64, result) >> 63n) ^ ((carry >> 8) & 1);
  const overflow = Number(BigInt.asUintN(64, carries) >> 63n) ^ (carry & 1);
  return (
    (carry & 1) |
    (parity << 2) |
    (Number(carries & 16n) & 16) |
    (result === 0n ? 64 : 0) |
    (sign << 7) |
    (overflow << 11)
  );
}

function hex(view: DataView, at: number, length: number): string {
  return Array.from({ length }, (_, i) =>
    view
      .getUint8(at + length - 1 - i)
      .toString(16)
      .padStart(2, "0"),
  ).join("");
}

/** What the host says, in the order and form of `ours`. */
function hostState(record: DataView): { [name: string]: string } {
  const state: { [name: string]: string } = {};
  const signal = record.getUint32(RECORD.SIGNAL, true);
  state.signal = String(signal);
  state.mxcsr = record.getUint32(24, true).toString(16);
  for (let n = 0; n < 3; n++) state[`xmm${n}`] = hex(record, 160 + 16 * n, 16);
  for (let n = 0; n < 8; n++) state[`mm${physical(record, 0, n)}`] = hex(record, 32 + 16 * n, 10);
  state.top = String((record.getUint16(2, true) >> 11) & 7);
  state.tags = record.getUint8(4).toString(16);
  if (signal !== 0) return state;
  GPRS.forEach((at, n) => {
    state[`r${n}`] = hex(record, at, 8);
  });
  state.rsi = hex(record, RECORD.RSI, 8);
  state.memory = hex(record, RECORD.MEMORY, 32);
  state.flags = (Number(record.getBigUint64(RECORD.RFLAGS, true)) & ARITHMETIC_FLAGS).toString(16);
  return state;
}

const SIGNALS: { readonly [vector: number]: number } = {
  [VECTOR.XM]: SIGNAL.SIGFPE,
  [VECTOR.MF]: SIGNAL.SIGFPE,
  [VECTOR.GP]: SIGNAL.SIGSEGV,
  [VECTOR.UD]: SIGNAL.SIGILL,
};

function ourState(rig: Rig, status: number): { [name: string]: string } {
  const state: { [name: string]: string } = {};
  const vector = rig.cpu.getInt32(PENDING_VECTOR.offset, true);
  const signal = status === 0 ? 0 : (SIGNALS[vector] ?? -1);
  state.signal = String(signal);
  state.mxcsr = rig.cpu.getUint32(MXCSR.offset, true).toString(16);
  for (let n = 0; n < 3; n++) state[`xmm${n}`] = hex(rig.cpu, VECTOR_BASE + VECTOR_STRIDE * n, 16);
  for (let n = 0; n < 8; n++) state[`mm${n}`] = hex(rig.cpu, X87_BASE + 16 * n, 10);
  state.top = String((rig.cpu.getUint32(FSW.offset, true) >> 11) & 7);
  state.tags = rig.cpu.getUint32(FTW.offset, true).toString(16);
  if (signal !== 0) return state;
  for (let n = 0; n < 4; n++) state[`r${n}`] = hex(rig.cpu, 8 * n, 8);
  state.rsi = hex(rig.cpu, 8 * 6, 8);
  state.memory = hex(rig.ram, OPERAND, 32);
  state.flags = flagsOf(rig).toString(16);
  return state;
}

type ControlWord = (next: (below: number) => number) => number;

/** The states of one form: inputs, and where the host's answers are. */
class Comparison {
  readonly form: Form;
  readonly records = new Uint8Array(CASES * RECORD.SIZE);
  private readonly immediates: number[] = [];

  constructor(form: Form, mxcsrOf: ControlWord) {
    this.form = form;
    let seed = 0x9e3779b9;
    for (const letter of form.name) seed = Math.imul(seed ^ letter.charCodeAt(0), 0x01000193);
    const next = random(seed);
    for (let k = 0; k < CASES; k++) {
      this.immediates.push(next(3) === 0 ? next(256) : next(32));
      makeRecord(new DataView(this.records.buffer, k * RECORD.SIZE), form, next, mxcsrOf(next), this.immediates[k]);
    }
  }

  compare(rig: Rig, answers: Uint8Array): void {
    for (let k = 0; k < CASES; k++) {
      const input = new DataView(this.records.buffer, k * RECORD.SIZE, RECORD.SIZE);
      load(rig, input, this.immediates[k]);
      const ours = ourState(rig, this.form.run());
      const hosts = hostState(new DataView(answers.buffer, answers.byteOffset + k * RECORD.SIZE, RECORD.SIZE));
      const different = Object.keys(hosts).filter((name) => hosts[name] !== ours[name]);
      if (different.length === 0) continue;
      const lines = different.map((name) => `${name}: host ${hosts[name]}, ours ${ours[name]}`);
      const before = Object.entries(hostState(input)).filter(([name]) => !/^mm[03-7]|signal/.test(name));
      lines.push(`before: ${before.map(([name, value]) => `${name}=${value}`).join(" ")}`);
      assert.fail(`${this.form.name}, immediate ${this.immediates[k]}, case ${k}\n${lines.join("\n")}`);
    }
  }
}

const masked: ControlWord = (next) => MXCSRS[next(MXCSRS.length)];
const unmasked: ControlWord = (next) =>
  (next(64) << 7) | (next(4) << 13) | (next(6) === 0 ? 0x8000 : 0) | (next(6) === 0 ? 0x40 : 0);

describe("SSE and MMX against the host", () => {
  const rig = buildRig([...SSE, ...MMX]);
  const comparisons = rig.forms
    .filter(({ name }) => FORMS.test(name) && !APPROXIMATE.test(name))
    .flatMap((form) => [new Comparison(form, masked), new Comparison(form, unmasked)]);
  let answers: Uint8Array | undefined;
  before(() => {
    const host = buildHost();
    if (host !== undefined) answers = runHost(host, Buffer.concat(comparisons.map(({ records }) => records)));
  });
  for (const [k, comparison] of comparisons.entries()) {
    test(`${comparison.form.name}${k % 2 === 0 ? "" : ", unmasked exceptions"}`, (t) => {
      if (answers === undefined) return t.skip("no host to compare with");
      const size = comparison.records.length;
      comparison.compare(rig, answers.subarray(k * size, (k + 1) * size));
    });
  }
});
