// Random programs for comparing ways of execution: instructions of any row of the table, and control-flow graphs of blocks of them.

import { parseRow, type Row } from "../../src/cpu/decode-table.ts";
import type { InstructionGroup } from "../../src/isa/instruction.ts";
import { ALU } from "../../src/isa/integer/alu.ts";
import { BITS } from "../../src/isa/integer/bits.ts";
import { MOVE } from "../../src/isa/integer/move.ts";
import { MULTIPLY } from "../../src/isa/integer/multiply.ts";
import { SHIFT } from "../../src/isa/integer/shift.ts";
import { STACK } from "../../src/isa/integer/stack.ts";
import { STRING } from "../../src/isa/integer/string.ts";
import { MMX } from "../../src/isa/mmx/mmx.ts";
import { SSE_COMPARISONS } from "../../src/isa/sse/compare.ts";
import { SSE_CONVERSIONS } from "../../src/isa/sse/convert.ts";
import { SSE_ARITHMETIC } from "../../src/isa/sse/float-arithmetic.ts";
import { SSE_MOVES } from "../../src/isa/sse/move.ts";
import { SSE } from "../../src/isa/sse/sse.ts";
import { XSAVE_INSTRUCTIONS } from "../../src/isa/system/xsave.ts";
import { X87 } from "../../src/isa/x87/x87.ts";

/** A generator of numbers below 2^32 that gives the same ones for the same seed (G. Marsaglia, "Xorshift RNGs", 2003). */
export class Source {
  private state: number;

  constructor(seed: number) {
    this.state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0 || 1;
    for (let n = 0; n < 8; n++) this.word();
  }

  word(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>> 0;
    return this.state;
  }

  below(limit: number): number {
    return Math.floor((this.word() / 2 ** 32) * limit);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  quad(): bigint {
    const words = (BigInt(this.word()) << 32n) | BigInt(this.word());
    switch (this.below(5)) {
      case 0:
        return words & 0xffn;
      case 1:
        return BigInt.asUintN(64, -(words & 0xffn));
      case 2:
        return 1n << (words & 63n);
      case 3:
        return words & 0xffffffffn;
      default:
        return words;
    }
  }
}

function rowsOf(groups: readonly InstructionGroup[]): readonly Row[] {
  return groups
    .flat()
    .flatMap((instruction) => instruction.rows.map((text) => parseRow(instruction, text)))
    .filter((row) => !row.options.has("end") && !row.options.has("i64") && row.opcodes !== undefined)
    .filter((row) => !/^(HLT|POPF|ENTER|REP|UD|INT|PAUSE)/.test(row.instruction.name));
}

const COMMON = rowsOf([ALU, MOVE, SHIFT]);
const INTEGER = rowsOf([ALU, MOVE, SHIFT, MULTIPLY, BITS, STACK, STRING]);
const UNALIGNED = rowsOf([SSE]).filter(({ instruction }) => /^(MOVUP|MOVDQU|LDDQU)/.test(instruction.name));
const ALL = rowsOf([MULTIPLY, BITS, STACK, STRING, SSE, MMX, X87]);

const FLOAT_ROWS = rowsOf([X87]);
const FLOAT_STATE = rowsOf([MMX, XSAVE_INSTRUCTIONS.filter(({ name }) => /^FX/.test(name))]);
/** What compilers make of long double, and what keeps the stack from running over. */
const FLOAT_COMMON = FLOAT_ROWS.filter(({ instruction: { name } }) =>
  /^(FLD|FLD1|FLDZ|FILD|FSTP?|FADDP?|FSUBR?P?|FMULP?|FDIVR?P?|FI?ADD|FXCH|FCOMI|FUCOMIP|FCHS|FSQRT|FCMOV.*|FNSTSW|FISTP)$/.test(
    name,
  ),
);
const VECTOR_COMMON = rowsOf([SSE_ARITHMETIC, SSE_MOVES, SSE_COMPARISONS, SSE_CONVERSIONS]);
/** What compilers make of float and double. */
const VECTOR_FREQUENT = VECTOR_COMMON.filter(({ instruction: { name } }) =>
  /^((ADD|SUB|MUL|DIV)[PS][SD]|SQRTS[SD]|MOVS[SD]|MOVAP[SD]|MOVUP[SD]|U?COMIS[SD]|CVT(T?SD2SI|SI2S[SD]|SD2SS|SS2SD))$/.test(
    name,
  ),
);
const VECTOR_STATE = rowsOf([SSE, XSAVE_INSTRUCTIONS.filter(({ name }) => /MXCSR$/.test(name))]);
/** Few registers, so that one instruction's result is often another's operand. */
const VECTOR_REGISTERS = [0, 1, 2, 6, 9];

/** What a program is mostly for. */
export type Flavour = "any" | "x87" | "vectors";
/** How many of a hundred programs are for the x87 and for the vector registers. */
const X87_PROGRAMS = 20;
const VECTOR_PROGRAMS = 30;

/** Base of memory operands, and a small index. */
export const BASE = 3;
export const INDEX = 5;
const FREE = [0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14];

function word(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, n) => (value >> Math.min(31, n * 8)) & 0xff);
}

/** ModRM for memory operand: displacement, index, RIP. */
function memory(s: Source, reg: number, aligned: boolean): { bytes: number[]; rex: number } {
  const r = (reg & 7) << 3;
  switch (s.below(8)) {
    case 0:
      return { bytes: [0x80 | r | BASE, ...word(s.below(2000), 4)], rex: 0 };
    case 1:
      return { bytes: [0x44 | r, (s.below(4) << 6) | (INDEX << 3) | BASE, s.below(64)], rex: 0 };
    case 2:
      // RIP-relative: behind the code, in the same 64 KiB.
      return { bytes: [0x05 | r, ...word(0x8000 + s.below(64) * 8, 4)], rex: 0 };
    default:
      if (aligned && s.chance(80)) return { bytes: [0x40 | r | BASE, s.below(8) * 16], rex: 0 };
      return { bytes: [0x40 | r | BASE, s.below(16) * (s.chance(80) ? 8 : 3)], rex: 0 };
  }
}

function encode(s: Source, row: Row, registers: readonly number[] = FREE): number[] {
  const out: number[] = [];
  let rex = 0;
  const sizes = row.operands.map(({ size }) => size);
  const wide = sizes.some((size) => size === "v" || size === "y" || size === "z") || row.operands.length === 0;
  const narrow = row.prefix === "any" && sizes.some((size) => size === "v" || size === "z") && s.chance(10);
  if (row.prefix === 1 || narrow) out.push(0x66);
  if (row.prefix === 2) out.push(0xf3);
  if (row.prefix === 3) out.push(0xf2);
  if (wide && s.chance(40)) rex |= 0x48;
  let opcode = row.opcode;
  if (row.opcodes === 16) opcode += s.below(16);
  const tail: number[] = [];
  if (row.opcodes === 8) {
    const number = s.pick(FREE);
    opcode += number & 7;
    if (number >= 8) rex |= 0x41;
  }
  if (row.modrm) {
    const special = row.operands.some(({ kind }) => "SCDPQN".includes(kind));
    const reg = row.reg >= 0 ? row.reg : special ? s.below(8) : s.pick(registers);
    if (reg >= 8) rex |= 0x44;
    if (row.mod === "memory" || (row.mod === "any" && s.chance(45))) {
      const aligned = row.operands.some(({ kind, size }) => "WM".includes(kind) && size === "x");
      const operand = memory(s, reg, aligned);
      tail.push(...operand.bytes);
    } else {
      const rm = row.rm >= 0 ? row.rm : special ? s.below(8) : s.pick(registers);
      if (rm >= 8) rex |= 0x41;
      tail.push(0xc0 | ((reg & 7) << 3) | (rm & 7));
    }
  }
  if (rex !== 0 || s.chance(20)) out.push(rex | 0x40);
  if (row.map >= 1) out.push(0x0f);
  if (row.map === 2) out.push(0x38);
  if (row.map === 3) out.push(0x3a);
  out.push(opcode, ...tail);
  for (const { kind, size } of row.operands) {
    if (kind === "O") {
      // The address of the data, in full.
      out.push(0x00, 0x08, 0x20, 0, 0, 0, 0, 0);
      continue;
    }
    if (kind !== "I" && kind !== "J") continue;
    const full = size === "v" && (rex & 8) !== 0;
    const bytes = size === "b" ? 1 : size === "w" ? 2 : full ? 8 : narrow ? 2 : 4;
    const value = s.chance(50) ? s.below(256) - 128 : s.word() | 0;
    out.push(...word(value, bytes));
  }
  return out;
}

/** One instruction that falls through, unless it faults. */
export function randomInstruction(s: Source, flavour: Flavour = "any"): number[] {
  if (flavour === "x87" && s.chance(80)) {
    return encode(s, s.pick(s.chance(80) ? FLOAT_COMMON : s.chance(80) ? FLOAT_ROWS : FLOAT_STATE));
  }
  if (flavour === "vectors" && s.chance(80)) {
    const rows = s.chance(70) ? VECTOR_FREQUENT : s.chance(80) ? VECTOR_COMMON : VECTOR_STATE;
    return encode(s, s.pick(rows), VECTOR_REGISTERS);
  }
  if (s.chance(2)) return encode(s, s.pick(UNALIGNED));
  const row = s.pick(s.chance(55) ? COMMON : s.chance(50) ? INTEGER : ALL);
  return encode(s, row);
}

/** Comparisons and loops are what conditional jumps usually have before them. */
function beforeJump(s: Source): number[] {
  const a = s.pick(FREE) & 7;
  const b = s.pick(FREE) & 7;
  switch (s.below(5)) {
    case 0:
      return [0x48, 0x39, 0xc0 | (a << 3) | b];
    case 1:
      return [0x85, 0xc0 | (a << 3) | b];
    case 2:
      return [0x41, 0xff, 0xcf];
    case 3:
      return [0x83, 0xf8 | b, s.below(256)];
    default:
      return randomInstruction(s);
  }
}

/** How a block ends. `loop` jumps by its counter, `ijmp` and `icall` choose one of two targets by a condition. */
type End = "fall" | "jcc" | "jmp" | "call" | "ret" | "loop" | "ijmp" | "icall" | "hlt";
const END_BYTES: { readonly [end in End]: number } = {
  fall: 0,
  jcc: 6,
  jmp: 5,
  call: 5,
  ret: 1,
  loop: 9,
  ijmp: 21,
  icall: 21,
  hlt: 1,
};
const ENDS: readonly End[] = ["fall", "jcc", "jcc", "jcc", "jcc", "jmp", "call", "jcc", "loop", "ijmp", "icall"];

export interface Program {
  /** The first byte is the entry. */
  readonly bytes: readonly number[];
  /** Offsets of the blocks; the last one halts. */
  readonly starts: readonly number[];
  /** Offsets of the instructions in blocks, and of what ends these. */
  readonly instructions: readonly number[];
}

/** A program of blocks that jump to one another, are called and return. */
export function randomProgram(s: Source, blocks: number): Program {
  const near = (n: number): number =>
    s.chance(70) ? Math.min(blocks - 1, Math.max(0, n + s.below(6) - 3)) : s.below(blocks);
  const kind = s.below(100);
  const flavour = kind < X87_PROGRAMS ? "x87" : kind < X87_PROGRAMS + VECTOR_PROGRAMS ? "vectors" : "any";
  const made = Array.from({ length: blocks }, (_, n) => {
    const body: number[] = [];
    const instructions: number[] = [];
    for (let k = s.below(flavour === "any" ? 6 : 10); k > 0; k--) {
      instructions.push(body.length);
      body.push(...randomInstruction(s, flavour));
    }
    const end: End = n === blocks - 1 ? "hlt" : s.chance(3) ? "ret" : s.pick(ENDS);
    if (end === "jcc" || end === "ijmp" || end === "icall") {
      instructions.push(body.length);
      body.push(...beforeJump(s));
    }
    if (end !== "fall") instructions.push(body.length);
    return { body, instructions, end, target: near(n), other: near(n), cc: s.below(16) };
  });
  const starts: number[] = [];
  let at = 0;
  for (const { body, end } of made) {
    starts.push(at);
    at += body.length + END_BYTES[end];
  }
  const bytes: number[] = [];
  made.forEach(({ body, end, target, other, cc }) => {
    bytes.push(...body);
    const begin = bytes.length;
    const relative = (from: number, to: number): number[] => word(starts[to] - begin - from, 4);
    switch (end) {
      case "jcc":
        bytes.push(0x0f, 0x80 | cc, ...relative(6, target));
        break;
      case "jmp":
      case "call":
        bytes.push(end === "jmp" ? 0xe9 : 0xe8, ...relative(5, target));
        break;
      case "loop":
        // LOOP, LOOPE, LOOPNE or JRCXZ over a jump that skips the one to the target.
        bytes.push(0xe0 | (cc & 3), 2, 0xeb, 5, 0xe9, ...relative(9, target));
        break;
      case "ijmp":
      case "icall":
        // lea r8, target; lea r9, other; cmovcc r8, r9; jmp or call r8
        bytes.push(0x4c, 0x8d, 0x05, ...relative(7, target), 0x4c, 0x8d, 0x0d, ...relative(14, other));
        bytes.push(0x4d, 0x0f, 0x40 | cc, 0xc1, 0x41, 0xff, end === "ijmp" ? 0xe0 : 0xd0);
        break;
      case "ret":
        bytes.push(0xc3);
        break;
      case "hlt":
        bytes.push(0xf4);
        break;
    }
  });
  const instructions = made.flatMap((block, n) => block.instructions.map((offset) => starts[n] + offset));
  return { bytes, starts, instructions };
}
