// Compares x87 instructions of the scratch module with the host CPU, state for state.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Instruction } from "../../../src/isa/instruction.ts";
import { FCF, FCW, FRES, FSW, FTW, FX, GPR, X87_BASE } from "../../../src/isa/state.ts";
import { near, operand, Random, type Value80, value80 } from "./cases.ts";
import { INDEX_AT, OPERAND_AT, type Scratch } from "./scratch.ts";

export interface Tested {
  readonly instruction: Instruction;
  readonly row: string;
  readonly code: readonly number[];
  readonly index: number;
  readonly opsize: 16 | 32;
}

/** All encodings of a row with memory operand [rsi], or with each ST(i); memory images in both layouts. */
export function encodings(instruction: Instruction, row: string): Tested[] {
  const tokens = row.split(":")[0].trim().split(" ");
  const first = Number.parseInt(tokens[0], 16);
  const one = (code: number[], index = 0, opsize: 16 | 32 = 32): Tested => ({ instruction, row, code, index, opsize });
  if (tokens.length === 1) return [one([first])];
  if (tokens[1].startsWith("/")) {
    const code = [first, (Number(tokens[1][1]) << 3) | 6];
    return instruction.name.endsWith("ENV") ? [one(code), one([0x66, ...code], 0, 16)] : [one(code)];
  }
  const second = Number.parseInt(tokens[1], 16);
  const count = tokens[1].endsWith("+i") ? 8 : 1;
  return Array.from({ length: count }, (_, index) => one([first, second + index], index));
}

export interface Case {
  tested: number;
  fcw: number;
  fsw: number;
  /** One bit a physical register. */
  ftw: number;
  flags: number;
  /** ST(0) to ST(7). */
  stack: Value80[];
  memory: bigint[];
}

const RECORD = 136;
const ALL_FLAGS = 0x8d5;

export function makeCase(r: Random, tested: number, index: number): Case {
  const masks = r.chance(70) ? 0x3f : r.below(64);
  const fcw = masks | 0x40 | (r.pick([0, 2, 3, 3]) << 8) | (r.below(4) << 10);
  const top = r.below(8);
  const stack = Array.from({ length: 8 }, () => value80(r));
  const other = index === 0 ? 1 : index;
  if (r.chance(50)) stack[other] = near(r, stack[0]);
  const fsw = (r.next64() & 0x4700n) | (BigInt(masks) & r.next64() & (r.chance(80) ? 0n : 0x3fn));
  const memory = [operand(r), r.next64()];
  if (r.chance(30)) {
    // Digits of a BCD number.
    memory[0] = BigInt("0x" + Array.from({ length: 16 }, () => r.below(10)).join(""));
    memory[1] = BigInt("0x" + Array.from({ length: 2 }, () => r.below(10)).join("")) | (BigInt(r.below(2)) << 15n);
  } else if (r.chance(50)) {
    const value = value80(r);
    memory[0] = value.sig;
    memory[1] = BigInt(value.se);
  }
  // ST(7) is where a push goes.
  let ftw = r.chance(70) ? 0xff : r.below(256);
  if (r.chance(70)) ftw &= ~(1 << ((top + 7) & 7));
  return { tested, fcw, fsw: Number(fsw) | (top << 11), ftw, flags: r.below(0x1000) & ALL_FLAGS, stack, memory };
}

function encodeCase(view: DataView, at: number, c: Case): void {
  view.setUint32(at, c.tested, true);
  view.setUint32(at + 4, c.flags, true);
  const state = at + 8;
  view.setUint32(state, c.fcw, true);
  view.setUint32(state + 4, c.fsw, true);
  let tags = 0;
  for (let n = 0; n < 8; n++) if (((c.ftw >> n) & 1) === 0) tags |= 3 << (2 * n);
  view.setUint32(state + 8, tags, true);
  c.stack.forEach(({ sig, se }, n) => {
    view.setBigUint64(state + 28 + 10 * n, sig, true);
    view.setUint16(state + 36 + 10 * n, se, true);
  });
  c.memory.forEach((value, n) => {
    view.setBigUint64(at + 120 + 8 * n, value, true);
  });
}

/** What an instruction left: printable, so that differences can be. */
export interface Outcome {
  fcw: number;
  fsw: number;
  ftw: number;
  ax: number;
  flags: number;
  stack: string[];
  memory: string[];
}

const hex = (value: bigint, digits: number): string => value.toString(16).padStart(digits, "0");

function decodeOutcome(view: DataView, at: number): Outcome {
  const state = at + 8;
  const tags = view.getUint16(state + 8, true);
  let ftw = 0;
  for (let n = 0; n < 8; n++) if (((tags >> (2 * n)) & 3) !== 3) ftw |= 1 << n;
  return {
    fcw: view.getUint16(state, true),
    fsw: view.getUint16(state + 4, true),
    ftw,
    ax: view.getUint16(at, true),
    flags: view.getUint32(at + 4, true) & ALL_FLAGS,
    stack: Array.from({ length: 8 }, (_, n) =>
      text(view.getBigUint64(state + 28 + 10 * n, true), view.getUint16(state + 36 + 10 * n, true)),
    ),
    memory: [0, 1].map((n) => hex(view.getBigUint64(at + 120 + 8 * n, true), 16)),
  };
}

export function text(sig: bigint, se: number): string {
  return `${hex(BigInt(se), 4)}:${hex(sig, 16)}`;
}

/** The arithmetic flags from their representation (src/isa/state.ts). */
function readFlags(memory: DataView): number {
  const result = memory.getBigInt64(FRES.offset, true);
  const carries = memory.getBigInt64(FX.offset, true);
  const carry = memory.getInt32(FCF.offset, true);
  const cf = carry & 1;
  const sign = Number(result < 0n) ^ ((carry >> 8) & 1);
  let low = (Number(result & 0xffn) ^ (carry >> 16)) & 0xff;
  low ^= low >> 4;
  low ^= low >> 2;
  low ^= low >> 1;
  const pf = (low & 1) ^ 1;
  const of = Number(carries < 0n) ^ cf;
  return cf | (pf << 2) | Number(carries & 16n) | (Number(result === 0n) << 6) | (sign << 7) | (of << 11);
}

function writeFlags(memory: DataView, flags: number): void {
  const cf = flags & 1;
  const zf = (flags >> 6) & 1;
  memory.setBigInt64(FRES.offset, BigInt(zf ^ 1), true);
  memory.setBigInt64(FX.offset, (BigInt(((flags >> 11) & 1) ^ cf) << 63n) | BigInt(flags & 16), true);
  memory.setInt32(FCF.offset, cf | (((flags >> 7) & 1) << 8) | ((zf ^ ((flags >> 2) & 1)) << 16), true);
}

export function runScratch(scratch: Scratch, run: () => number, index: number, c: Case): Outcome {
  const { memory } = scratch;
  const top = (c.fsw >> 11) & 7;
  memory.setUint32(FCW.offset, c.fcw, true);
  memory.setUint32(FSW.offset, c.fsw, true);
  memory.setUint32(FTW.offset, c.ftw, true);
  memory.setBigUint64(GPR.RAX * 8, 0n, true);
  writeFlags(memory, c.flags);
  c.stack.forEach(({ sig, se }, n) => {
    const at = X87_BASE + 16 * ((top + n) & 7);
    memory.setBigUint64(at, sig, true);
    memory.setBigUint64(at + 8, BigInt(se), true);
  });
  c.memory.forEach((value, n) => {
    memory.setBigUint64(OPERAND_AT + 8 * n, value, true);
  });
  memory.setUint32(INDEX_AT, index, true);
  run();
  const fsw = memory.getUint32(FSW.offset, true);
  const after = (fsw >> 11) & 7;
  return {
    fcw: memory.getUint32(FCW.offset, true),
    fsw,
    ftw: memory.getUint32(FTW.offset, true),
    ax: memory.getUint16(GPR.RAX * 8, true),
    flags: readFlags(memory),
    stack: Array.from({ length: 8 }, (_, n) => {
      const at = X87_BASE + 16 * ((after + n) & 7);
      return text(memory.getBigUint64(at, true), Number(memory.getBigUint64(at + 8, true)));
    }),
    memory: [0, 1].map((n) => hex(memory.getBigUint64(OPERAND_AT + 8 * n, true), 16)),
  };
}

/** The oracle program, compiled; undefined where there is no compiler or the host is another machine. */
export function compileOracle(): { path: string; remove: () => void } | undefined {
  if (process.arch !== "x64" || process.platform !== "linux") return undefined;
  const folder = mkdtempSync(join(tmpdir(), "x87-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const path = join(folder, "oracle");
  const source = join(import.meta.dirname, "oracle.c");
  if (spawnSync("gcc", ["-O1", "-o", path, source]).status !== 0) {
    remove();
    return undefined;
  }
  return { path, remove };
}

/** Runs cases on the host. */
export function runHost(oracle: string, tested: readonly Tested[], cases: readonly Case[]): Outcome[] {
  const head = 4 + 16 * tested.length;
  const input = new DataView(new ArrayBuffer(head + RECORD * cases.length));
  input.setUint32(0, tested.length, true);
  tested.forEach(({ code }, n) => {
    input.setUint8(4 + 16 * n, code.length);
    code.forEach((byte, k) => {
      input.setUint8(5 + 16 * n + k, byte);
    });
  });
  cases.forEach((c, n) => {
    encodeCase(input, head + RECORD * n, c);
  });
  const output = execFileSync(oracle, { input: new Uint8Array(input.buffer), maxBuffer: 1 << 30, timeout: 60_000 });
  if (output.length !== RECORD * cases.length) throw new Error("the oracle ended early");
  const view = new DataView(output.buffer, output.byteOffset, output.length);
  return cases.map((_, n) => decodeOutcome(view, RECORD * n));
}

export interface Difference {
  readonly tested: Tested;
  readonly input: Case;
  readonly host: Outcome;
  readonly own: Outcome;
}

const CODES = 0x4500;
const C1 = 0x200;

/** Transcendental instructions: the manual allows an error of one unit in the last place (SDM Vol. 1 8.3.10), so that two processors may differ
 *  by as much, and in what C1 tells of the rounding. */
const TRANSCENDENTAL = /^(F2XM1|FCOS|FPATAN|FPTAN|FSIN|FSINCOS|FYL2X|FYL2XP1)$/;

/** Distance of two printed values in units of the last place. */
export function unitsApart(a: string, b: string): bigint {
  const place = (printed: string): bigint => {
    const [se, sig] = printed.split(":").map((part) => BigInt(`0x${part}`));
    const magnitude = ((se & 0x7fffn) << 63n) + (sig & ((1n << 63n) - 1n));
    return (se & 0x8000n) === 0n ? magnitude : -magnitude;
  };
  const distance = place(a) - place(b);
  return distance < 0n ? -distance : distance;
}

/** Where the host, an AMD processor, differs from Intel's manual, which is followed: with an unmasked invalid operation FCOM and its kin leave
 *  the condition codes or flags as they were, and FCOMI clears C1 (SDM Vol. 2A FCOM, FCOMI). */
function alike({ instruction: { name }, opsize }: Tested, host: Outcome, own: Outcome): boolean {
  const adjusted = { ...host };
  const stopped = (own.fsw & 1 & ~own.fcw) !== 0;
  if (name === "FNSTENV") {
    // Behind the tag word come pointers, which are not the scratch module's.
    const checked = ({ memory: [low, high] }: Outcome): string => (opsize === 32 ? high.slice(-8) + low : low.slice(4));
    if (checked(host) !== checked(own)) return false;
    adjusted.memory = own.memory;
  }
  if (TRANSCENDENTAL.test(name)) {
    adjusted.fsw = (adjusted.fsw & ~C1) | (own.fsw & C1);
    adjusted.stack = host.stack.map((value, n) =>
      n < 2 && unitsApart(value, own.stack[n]) <= 1n ? own.stack[n] : value,
    );
  }
  if (/COMI/.test(name)) {
    adjusted.fsw = (adjusted.fsw & ~C1) | (own.fsw & C1);
    if (stopped) adjusted.flags = own.flags;
  } else if (/COM|TST/.test(name) && stopped) adjusted.fsw = (adjusted.fsw & ~CODES) | (own.fsw & CODES);
  return JSON.stringify(own) === JSON.stringify(adjusted);
}

/** Runs random cases of every instruction given on both; gives those that differ. */
export function compare(
  scratch: Scratch,
  oracle: string,
  tested: readonly Tested[],
  perInstruction: number,
  seed: number,
): { count: number; differences: Difference[] } {
  const r = new Random(seed);
  const differences: Difference[] = [];
  let count = 0;
  const batch = 50_000;
  const total = perInstruction * tested.length;
  while (count < total) {
    const cases = Array.from({ length: Math.min(batch, total - count) }, (_, n) => {
      const which = (count + n) % tested.length;
      return makeCase(r, which, tested[which].index);
    });
    const host = runHost(oracle, tested, cases);
    cases.forEach((input, n) => {
      const { instruction, row, index, opsize } = tested[input.tested];
      const own = runScratch(scratch, scratch.run(instruction, row, opsize), index, input);
      if (!alike(tested[input.tested], host[n], own)) {
        differences.push({ tested: tested[input.tested], input, host: host[n], own });
      }
    });
    count += cases.length;
  }
  return { count, differences };
}
