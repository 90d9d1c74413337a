// Data movement of XMM registers (Intel SDM Vol. 1 10.4.1.1, 11.4.1.1, 12.3; the pages of the instructions in Vol. 2A and 2B).
// A register to register move of a scalar keeps the rest of the destination; a load of a scalar clears it.

import { laneOp, op, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FEATURE } from "./feature.ts";
import { half, shuffleLanes, useSse, zeroExtend } from "./state.ts";

type Feature = Instruction["feature"];

function unaligned(x: Sem): void {
  useSse(x);
  x.write(0, x.read(1));
}

function aligned(x: Sem): void {
  useSse(x);
  x.writeAligned(0, x.readAligned(1));
}

function move(name: string, feature: Feature, semantics: (x: Sem) => void, ...rows: string[]): Instruction {
  return { name, rows, feature, hot: true, semantics };
}

/** Computes the whole destination from its old value and the source. */
function merge(
  name: string,
  feature: Feature,
  row: string,
  change: (old: Val, source: Val, x: Sem) => Val,
): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.read(1);
      x.write(0, change(x.read(0), source, x));
    },
  };
}

/** Copies the low lane of one register to another. */
function lowLane(name: string, feature: Feature, row: string, type: "f32" | "f64"): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      const known = x.isOrdinary(1, type);
      x.writeFloat(0, x.readFloat(1, type));
      if (known) x.setOrdinary(0, type);
    },
  };
}

/** Stores a part of an XMM register to memory. */
function storePart(name: string, feature: Feature, row: string, part: (value: Val) => Val): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      x.write(0, part(x.read(1)));
    },
  };
}

const loadLow = (old: Val, source: Val): Val => laneOp("i64x2.replace_lane", [0], old, source);
const loadHigh = (old: Val, source: Val): Val => laneOp("i64x2.replace_lane", [1], old, source);
const highToLow = (old: Val, source: Val): Val => shuffleLanes(source, old, 8, [1, 3]);
const lowToHigh = (old: Val, source: Val): Val => shuffleLanes(old, source, 8, [0, 2]);

function fromGeneral(x: Sem): void {
  useSse(x);
  x.write(0, zeroExtend(x.read(1)));
}

function toGeneral(x: Sem): void {
  useSse(x);
  const value = x.read(1);
  x.write(0, x.bits(0) === 64 ? half(value, 0) : laneOp("i32x4.extract_lane", [0], value));
}

/** Writes lanes chosen from the source alone. */
function duplicate(name: string, row: string, lanes: readonly number[]): Instruction {
  return {
    name,
    rows: [row],
    feature: FEATURE.SSE3,
    semantics: (x) => {
      useSse(x);
      const source = x.readAligned(1);
      x.write(0, shuffleLanes(source, source, 4, lanes));
    },
  };
}

function mask(name: string, feature: Feature, row: string, operation: string): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      x.write(0, op(operation, x.read(1)));
    },
  };
}

export const SSE_MOVES: InstructionGroup = [
  move("MOVUPS", FEATURE.SSE, unaligned, "NP 0F 10 /r: Vx, Wx", "NP 0F 11 /r: Wx, Vx"),
  move("MOVUPD", FEATURE.SSE2, unaligned, "66 0F 10 /r: Vx, Wx", "66 0F 11 /r: Wx, Vx"),
  move("MOVDQU", FEATURE.SSE2, unaligned, "F3 0F 6F /r: Vx, Wx", "F3 0F 7F /r: Wx, Vx"),
  move("LDDQU", FEATURE.SSE3, unaligned, "F2 0F F0 /r: Vx, Mx"),
  move("MOVAPS", FEATURE.SSE, aligned, "NP 0F 28 /r: Vx, Wx", "NP 0F 29 /r: Wx, Vx"),
  move("MOVAPD", FEATURE.SSE2, aligned, "66 0F 28 /r: Vx, Wx", "66 0F 29 /r: Wx, Vx"),
  move("MOVDQA", FEATURE.SSE2, aligned, "66 0F 6F /r: Vx, Wx", "66 0F 7F /r: Wx, Vx"),
  move("MOVNTPS", FEATURE.SSE, aligned, "NP 0F 2B /r: Mx, Vx"),
  move("MOVNTPD", FEATURE.SSE2, aligned, "66 0F 2B /r: Mx, Vx"),
  move("MOVNTDQ", FEATURE.SSE2, aligned, "66 0F E7 /r: Mx, Vx"),
  move("MOVNTDQA", FEATURE.SSE41, aligned, "66 0F 38 2A /r: Vx, Mx"),
  lowLane("MOVSS", FEATURE.SSE, "F3 0F 10 /r: Vx, Ux", "f32"),
  lowLane("MOVSS", FEATURE.SSE, "F3 0F 11 /r: Ux, Vx", "f32"),
  move("MOVSS", FEATURE.SSE, unaligned, "F3 0F 10 /r: Vd, Md", "F3 0F 11 /r: Md, Vd"),
  lowLane("MOVSD", FEATURE.SSE2, "F2 0F 10 /r: Vx, Ux", "f64"),
  lowLane("MOVSD", FEATURE.SSE2, "F2 0F 11 /r: Ux, Vx", "f64"),
  move("MOVSD", FEATURE.SSE2, unaligned, "F2 0F 10 /r: Vq, Mq", "F2 0F 11 /r: Mq, Vq"),
  move("MOVQ", FEATURE.SSE2, unaligned, "F3 0F 7E /r: Vq, Wq", "66 0F D6 /r: Wq, Vq"),
  move("MOVD", FEATURE.SSE2, fromGeneral, "66 0F 6E /r: Vx, Ey"),
  move("MOVD", FEATURE.SSE2, toGeneral, "66 0F 7E /r: Ey, Vx"),

  merge("MOVHLPS", FEATURE.SSE, "NP 0F 12 /r: Vx, Ux", highToLow),
  merge("MOVLPS", FEATURE.SSE, "NP 0F 12 /r: Vx, Mq", loadLow),
  merge("MOVLPD", FEATURE.SSE2, "66 0F 12 /r: Vx, Mq", loadLow),
  merge("MOVLHPS", FEATURE.SSE, "NP 0F 16 /r: Vx, Ux", lowToHigh),
  merge("MOVHPS", FEATURE.SSE, "NP 0F 16 /r: Vx, Mq", loadHigh),
  merge("MOVHPD", FEATURE.SSE2, "66 0F 16 /r: Vx, Mq", loadHigh),
  storePart("MOVLPS", FEATURE.SSE, "NP 0F 13 /r: Mq, Vx", (value) => half(value, 0)),
  storePart("MOVLPD", FEATURE.SSE2, "66 0F 13 /r: Mq, Vx", (value) => half(value, 0)),
  storePart("MOVHPS", FEATURE.SSE, "NP 0F 17 /r: Mq, Vx", (value) => half(value, 1)),
  storePart("MOVHPD", FEATURE.SSE2, "66 0F 17 /r: Mq, Vx", (value) => half(value, 1)),

  duplicate("MOVSLDUP", "F3 0F 12 /r: Vx, Wx", [0, 0, 2, 2]),
  duplicate("MOVSHDUP", "F3 0F 16 /r: Vx, Wx", [1, 1, 3, 3]),
  {
    name: "MOVDDUP",
    rows: ["F2 0F 12 /r: Vx, Wq"],
    feature: FEATURE.SSE3,
    semantics: (x) => {
      useSse(x);
      x.write(0, op("i64x2.splat", x.read(1)));
    },
  },

  mask("MOVMSKPS", FEATURE.SSE, "NP 0F 50 /r: Gd, Ux", "i32x4.bitmask"),
  mask("MOVMSKPD", FEATURE.SSE2, "66 0F 50 /r: Gd, Ux", "i64x2.bitmask"),
  mask("PMOVMSKB", FEATURE.SSE2, "66 0F D7 /r: Gd, Ux", "i8x16.bitmask"),
];
