// Integer instructions of XMM registers (Intel SDM Vol. 1 11.4.2, 12.6, 12.10; the pages of the instructions in Vol. 2B).

import { laneOp, op, select, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FLAG } from "../state.ts";
import { FEATURE } from "./feature.ts";
import { byteShift, PACKED_INTEGER, PACKED_SHIFTS, type Packed, shiftLanes } from "./packed-integer.ts";
import { half, lanes, shuffle, shuffleLanes, useSse, ZERO, zeroExtend } from "./state.ts";

/** An instruction of destination and source, both of 128 bits, the source aligned. */
export function packed(name: string, feature: string, row: string, compute: Packed): Instruction {
  return {
    name,
    rows: [`${row} /r: Vx, Wx`],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.readAligned(1);
      x.write(0, compute(x.read(0), source, x.c));
    },
  };
}

const PACKED: InstructionGroup = PACKED_INTEGER.map(({ name, opcode, feature, compute }) =>
  packed(name, feature, `66 ${opcode}`, compute),
);

/** The logical instructions under their floating-point names; no flags of MXCSR are touched. */
const LOGICAL: InstructionGroup = (
  [
    ["AND", "54", (a, b) => op("v128.and", a, b)],
    ["ANDN", "55", (a, b) => op("v128.andnot", b, a)],
    ["OR", "56", (a, b) => op("v128.or", a, b)],
    ["XOR", "57", (a, b) => op("v128.xor", a, b)],
  ] as [string, string, Packed][]
).flatMap(([name, opcode, compute]) => [
  packed(`${name}PS`, FEATURE.SSE, `NP 0F ${opcode}`, compute),
  packed(`${name}PD`, FEATURE.SSE2, `66 0F ${opcode}`, compute),
]);

const SHIFTS: InstructionGroup = PACKED_SHIFTS.flatMap((kind): Instruction[] => [
  {
    name: kind.name,
    rows: [`66 ${kind.byRegister}: Vx, Wx`],
    feature: FEATURE.SSE2,
    semantics: (x) => {
      useSse(x);
      const count = x.c.let(half(x.readAligned(1), 0));
      x.write(0, shiftLanes(kind, x.read(0), count, x.c));
    },
  },
  {
    name: kind.name,
    rows: [`66 ${kind.byImmediate}: Ux, Ib`],
    feature: FEATURE.SSE2,
    semantics: (x) => {
      useSse(x);
      x.write(0, shiftLanes(kind, x.read(0), x.c.let(x.immediate()), x.c));
    },
  },
]);

/** PSLLDQ and PSRLDQ: from 16 on all bytes are shifted out. */
function shiftBytes(name: string, row: string, left: boolean): Instruction {
  return {
    name,
    rows: [row],
    feature: FEATURE.SSE2,
    semantics: (x) => {
      useSse(x);
      const count = x.c.let(x.immediate());
      const bytes = x.c.let(select(count.ltU(16), count, 16));
      x.write(0, byteShift(x.read(0), left ? bytes.neg() : bytes));
    },
  };
}

/** PMOVSX and PMOVZX: each step of `steps` doubles the width of the lanes. */
function extend(name: string, opcode: string, source: string, steps: readonly string[]): Instruction[] {
  return (["s", "u"] as const).map((sign) => ({
    name: `PMOV${sign === "s" ? "S" : "Z"}X${name}`,
    rows: [`66 0F 38 ${sign === "s" ? "2" : "3"}${opcode} /r: Vx, ${source}`],
    feature: FEATURE.SSE41,
    semantics: (x: Sem) => {
      useSse(x);
      let value = zeroExtend(x.read(1));
      for (const step of steps) value = op(`${step}_${sign}`, value);
      x.write(0, value);
    },
  }));
}

const WORDS = "i16x8.extend_low_i8x16";
const DOUBLEWORDS = "i32x4.extend_low_i16x8";
const QUADWORDS = "i64x2.extend_low_i32x4";

/** PHMINPOSUW: each word with its number below it, so that the least also has the least number. */
const minimumPosition: Packed = (_, source, c) => {
  const numbered = (part: "low" | "high", numbers: readonly number[]): Val =>
    op("v128.or", op("i32x4.shl", op(`i32x4.extend_${part}_i16x8_u`, source), 16), lanes(numbers));
  const four = c.let(op("i32x4.min_u", numbered("low", [0, 1, 2, 3]), numbered("high", [4, 5, 6, 7])));
  const two = c.let(op("i32x4.min_u", four, shuffleLanes(four, four, 4, [2, 3, 0, 1])));
  const one = c.let(op("i32x4.min_u", two, shuffleLanes(two, two, 4, [1, 0, 3, 2])));
  return shuffle(one, ZERO, [2, 3, 0, 1, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16]);
};

/** MPSADBW: eight sums of absolute differences between four bytes of the source and each four neighbours in the destination. */
function sumsOfDifferences(x: Sem): void {
  useSse(x);
  const { c } = x;
  const source = x.readAligned(1);
  const choice = c.let(x.immediate());
  const block = c.let(byteShift(source, choice.and(3).shl(2)));
  const window = c.let(byteShift(x.read(0), choice.and(4)));
  let sum: Val | undefined;
  for (let k = 0; k < 4; k++) {
    const neighbours = op("i16x8.extend_low_i8x16_u", shuffle(window, window, rotated(k)));
    const byte = op("i16x8.splat", laneOp("i8x16.extract_lane_u", [k], block));
    const difference = op("i16x8.abs", op("i16x8.sub", neighbours, byte));
    sum = sum === undefined ? difference : op("i16x8.add", sum, difference);
  }
  x.write(0, sum as Val);
}

function rotated(by: number): number[] {
  return Array.from({ length: 16 }, (_, i) => (i + by) % 16);
}

/** PTEST: ZF where source AND destination is zero, CF where source AND NOT destination is. */
function test(x: Sem): void {
  useSse(x);
  const source = x.readAligned(1);
  const destination = x.read(0);
  const zero = op("v128.any_true", op("v128.and", source, destination)).eqz();
  const carry = op("v128.any_true", op("v128.andnot", source, destination)).eqz();
  x.setArithmeticFlags(zero.mul(FLAG.ZF).or(carry));
}

export const SSE_INTEGER: InstructionGroup = [
  ...PACKED,
  ...LOGICAL,
  ...SHIFTS,
  shiftBytes("PSRLDQ", "66 0F 73 /3: Ux, Ib", false),
  shiftBytes("PSLLDQ", "66 0F 73 /7: Ux, Ib", true),
  ...extend("BW", "0", "Wq", [WORDS]),
  ...extend("BD", "1", "Wd", [WORDS, DOUBLEWORDS]),
  ...extend("BQ", "2", "Ww", [WORDS, DOUBLEWORDS, QUADWORDS]),
  ...extend("WD", "3", "Wq", [DOUBLEWORDS]),
  ...extend("WQ", "4", "Wd", [DOUBLEWORDS, QUADWORDS]),
  ...extend("DQ", "5", "Wq", [QUADWORDS]),
  packed("PHMINPOSUW", FEATURE.SSE41, "66 0F 38 41", minimumPosition),
  {
    name: "MPSADBW",
    rows: ["66 0F 3A 42 /r: Vx, Wx, Ib"],
    feature: FEATURE.SSE41,
    semantics: sumsOfDifferences,
  },
  { name: "PTEST", rows: ["66 0F 38 17 /r: Vx, Wx"], feature: FEATURE.SSE41, writes: "OSZAPC", semantics: test },
];
