// Conversions between MMX and XMM registers, and the masked store (Intel SDM Vol. 2A CVTPI2PS and the like, Vol. 2B MASKMOVQ). A memory
// operand in the place of the MMX register leaves the x87 state alone; #XM comes after the change to MMX state, as processors do it.

import { laneOp, op, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { doublewordsToSingles, vectorToDoublewords } from "../sse/convert.ts";
import { FEATURE } from "../sse/feature.ts";
import { DOUBLE, SINGLE } from "../sse/float-shape.ts";
import { storeMasked } from "../sse/masked-store.ts";
import { half, useSse, zeroExtend } from "../sse/state.ts";
import { enterMmx, useMmx } from "./state.ts";

/** Two floating-point lanes to two doublewords in an MMX register. */
function toMmx(name: string, row: string, feature: string, convert: (x: Sem, source: Val) => Val): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      useSse(x);
      useMmx(x);
      const source = x.bits(1) === 128 ? x.readAligned(1) : x.c.let(zeroExtend(x.read(1)));
      enterMmx(x);
      x.write(0, half(convert(x, source), 0));
    },
  };
}

/** Two doublewords from an MMX register or memory. */
function fromMmx(x: Sem): Val {
  useSse(x);
  if (!x.isMemory(1)) useMmx(x);
  const source = x.c.let(zeroExtend(x.read(1)));
  if (!x.isMemory(1)) enterMmx(x);
  return source;
}

function toSingles(x: Sem): void {
  const low = half(doublewordsToSingles(x, fromMmx(x), 2), 0);
  x.write(0, laneOp("i64x2.replace_lane", [0], x.read(0), low));
}

function toDoubles(x: Sem): void {
  x.write(0, op("f64x2.convert_low_i32x4_s", fromMmx(x)));
}

function maskedStore(x: Sem): void {
  useMmx(x);
  storeMasked(x, zeroExtend(x.read(0)), zeroExtend(x.read(1)), 8);
  enterMmx(x);
}

const singles =
  (mode: "mxcsr" | "truncate") =>
  (x: Sem, source: Val): Val =>
    vectorToDoublewords(x, SINGLE, source, 2, mode);
const doubles =
  (mode: "mxcsr" | "truncate") =>
  (x: Sem, source: Val): Val =>
    vectorToDoublewords(x, DOUBLE, source, 2, mode);

export const MMX_CONVERSIONS: InstructionGroup = [
  { name: "CVTPI2PS", rows: ["NP 0F 2A /r: Vx, Qq"], feature: FEATURE.SSE, semantics: toSingles },
  { name: "CVTPI2PD", rows: ["66 0F 2A /r: Vx, Qq"], feature: FEATURE.SSE2, semantics: toDoubles },
  toMmx("CVTTPS2PI", "NP 0F 2C /r: Pq, Wq", FEATURE.SSE, singles("truncate")),
  toMmx("CVTPS2PI", "NP 0F 2D /r: Pq, Wq", FEATURE.SSE, singles("mxcsr")),
  toMmx("CVTTPD2PI", "66 0F 2C /r: Pq, Wx", FEATURE.SSE2, doubles("truncate")),
  toMmx("CVTPD2PI", "66 0F 2D /r: Pq, Wx", FEATURE.SSE2, doubles("mxcsr")),
  { name: "MASKMOVQ", rows: ["NP 0F F7 /r: Pq, Nq ; mem"], feature: FEATURE.SSE, semantics: maskedStore },
];
