// Shuffles, blends, and moves of single lanes (Intel SDM Vol. 1 10.4.4, 11.4.1.4, 11.4.2, 12.6, 12.10; the pages of the instructions in
// Vol. 2A and 2B). The immediate that selects lanes is a constant to the translator, and data to the interpreter.

import { laneOp, op, select, type Val, v128 } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { FEATURE } from "./feature.ts";
import { packed } from "./integer.ts";
import { byteShift, shuffleBytes } from "./packed-integer.ts";
import { bitselect, half, lanes, shuffleLanes, splat, useSse } from "./state.ts";

/** The four two-bit fields of an immediate as the low bytes of an i32, one in each byte. */
function spread(immediate: Val): Val {
  const field = (k: number): Val => immediate.and(3 << (2 * k)).shl(6 * k);
  return field(0).or(field(1)).or(field(2)).or(field(3));
}

/** Doublewords chosen by an immediate of four two-bit fields. */
export function selectDoublewords(value: Val, immediate: Val): Val {
  const constant = immediate.constant;
  if (constant !== undefined) {
    return shuffleLanes(
      value,
      value,
      4,
      [0, 2, 4, 6].map((at) => (Number(constant) >> at) & 3),
    );
  }
  const fields = op(
    "i8x16.swizzle",
    op("i32x4.splat", spread(immediate)),
    lanes([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]),
  );
  return op("i8x16.swizzle", value, op("v128.or", op("i32x4.shl", fields, 2), splat(32, 0x03020100n)));
}

/** Words of the low (0) or high (1) half chosen by an immediate; the other half stays. */
export function selectWords(value: Val, immediate: Val, part: 0 | 1): Val {
  const constant = immediate.constant;
  const first = part * 4;
  if (constant !== undefined) {
    const chosen = [0, 2, 4, 6].map((at) => first + ((Number(constant) >> at) & 3));
    return shuffleLanes(value, value, 2, part === 0 ? [...chosen, 4, 5, 6, 7] : [0, 1, 2, 3, ...chosen]);
  }
  const where = [0, 0, 1, 1, 2, 2, 3, 3];
  const nothing = Array.from({ length: 8 }, () => 16);
  const fields = op(
    "i8x16.swizzle",
    op("i32x4.splat", spread(immediate)),
    lanes(part === 0 ? [...where, ...nothing] : [...nothing, ...where]),
  );
  // The half that stays has fields of zero: its base is its own place.
  const own = (k: number): number => (k >> 3 === part ? first * 2 + (k % 2) : k);
  const base = lanes(Array.from({ length: 16 }, (_, k) => own(k)));
  return op("i8x16.swizzle", value, op("i8x16.add", op("i16x8.shl", fields, 1), base));
}

/** One lane chosen by an i32 that may be larger than the number of lanes; 8 and 16 bits zero-extended. */
export function extractLane(value: Val, bits: 8 | 16 | 32 | 64, number: Val): Val {
  if (bits === 64) return select(number.and(1), half(value, 1), half(value, 0));
  const index = number.and(128 / bits - 1);
  if (bits === 8) return laneOp("i8x16.extract_lane_u", [0], op("i8x16.swizzle", value, op("i8x16.splat", index)));
  if (bits === 16) {
    const bytes = op("i16x8.splat", index.mul(0x0202).add(0x0100));
    return laneOp("i16x8.extract_lane_u", [0], op("i8x16.swizzle", value, bytes));
  }
  const bytes = op("i32x4.splat", index.mul(0x04040404).add(0x03020100));
  return laneOp("i32x4.extract_lane", [0], op("i8x16.swizzle", value, bytes));
}

const SHAPE = { 8: "i8x16", 16: "i16x8", 32: "i32x4", 64: "i64x2" } as const;

/** Replaces one lane chosen by an i32 that may be larger than the number of lanes. */
export function insertLane(value: Val, bits: 8 | 16 | 32 | 64, number: Val, element: Val): Val {
  const shape = SHAPE[bits];
  const index = number.and(128 / bits - 1);
  const numbers = bits === 64 ? v128(0n, 1n) : lanes(Array.from({ length: 128 / bits }, (_, i) => i));
  const mask = op(`${shape}.eq`, op(`${shape}.splat`, bits === 64 ? index.zx() : index), numbers);
  return bitselect(op(`${shape}.splat`, element), value, mask);
}

/** A mask of lanes whose bit in the immediate is set. */
function lanesOfBits(bits: 16 | 32 | 64, immediate: Val): Val {
  const shape = SHAPE[bits];
  const each = bits === 64 ? v128(1n, 2n) : lanes(Array.from({ length: 128 / bits }, (_, i) => 1 << i));
  const all = op(`${shape}.splat`, bits === 64 ? immediate.zx() : immediate);
  return op(`${shape}.eq`, op("v128.and", all, each), each);
}

/** Destination, source (aligned) and immediate, all fixed, to result. */
function withImmediate(
  name: string,
  feature: string,
  row: string,
  compute: (destination: Val, source: Val, immediate: Val) => Val,
): Instruction {
  return {
    name,
    rows: [`${row} /r: Vx, Wx, Ib`],
    feature,
    semantics: (x) => {
      useSse(x);
      const source = x.readAligned(1);
      x.write(0, compute(x.read(0), source, x.c.let(x.immediate())));
    },
  };
}

function shuffleSingles(a: Val, b: Val, immediate: Val): Val {
  return shuffleLanes(selectDoublewords(a, immediate), selectDoublewords(b, immediate), 4, [0, 1, 6, 7]);
}

function shuffleDoubles(a: Val, b: Val, immediate: Val): Val {
  const low = select(immediate.and(1), half(a, 1), half(a, 0));
  const high = select(immediate.and(2), half(b, 1), half(b, 0));
  return laneOp("i64x2.replace_lane", [1], op("i64x2.splat", low), high);
}

/** PALIGNR: destination above source, shifted right by bytes; a distance of 32 or more gives zero. */
function align(a: Val, b: Val, immediate: Val): Val {
  const distance = select(immediate.ltU(32), immediate, 32);
  return op("v128.or", byteShift(b, distance), byteShift(a, distance.sub(16)));
}

function blend(bits: 16 | 32 | 64) {
  return (a: Val, b: Val, immediate: Val): Val => bitselect(b, a, lanesOfBits(bits, immediate));
}

/** Blends by the sign bits of XMM0's lanes. */
function blendBySign(name: string, row: string, bits: 8 | 32 | 64): Instruction {
  return {
    name,
    rows: [`${row} /r: Vx, Wx`],
    feature: FEATURE.SSE41,
    semantics: (x) => {
      useSse(x);
      const source = x.readAligned(1);
      x.write(0, bitselect(source, x.read(0), op(`${SHAPE[bits]}.shr_s`, x.xmm(0), bits - 1)));
    },
  };
}

function extract(name: string, feature: string, rows: readonly string[], bits?: 8 | 16 | 32): Instruction {
  return {
    name,
    rows,
    feature,
    semantics: (x) => {
      useSse(x);
      const value = x.read(1);
      x.write(0, extractLane(value, bits ?? (x.bits(0) === 64 ? 64 : 32), x.immediate()));
    },
  };
}

function insert(name: string, feature: string, rows: readonly string[], bits?: 8 | 16): Instruction {
  return {
    name,
    rows,
    feature,
    semantics: (x) => {
      useSse(x);
      const element = x.read(1);
      x.write(0, insertLane(x.read(0), bits ?? (element.type === "i64" ? 64 : 32), x.immediate(), element));
    },
  };
}

/** INSERTPS: bits 7:6 choose the source's lane (of a register), 5:4 the place, 3:0 lanes to clear (SDM Vol. 2A INSERTPS). */
function insertSingle(x: Sem): void {
  useSse(x);
  const source = x.read(1);
  const immediate = x.c.let(x.immediate());
  const element = x.isMemory(1) ? source : extractLane(source, 32, immediate.shrU(6));
  const inserted = insertLane(x.read(0), 32, immediate.shrU(4), element);
  x.write(0, op("v128.andnot", inserted, lanesOfBits(32, immediate)));
}

export const SSE_SHUFFLES: InstructionGroup = [
  withImmediate("PSHUFD", FEATURE.SSE2, "66 0F 70", (_, source, immediate) => selectDoublewords(source, immediate)),
  withImmediate("PSHUFLW", FEATURE.SSE2, "F2 0F 70", (_, source, immediate) => selectWords(source, immediate, 0)),
  withImmediate("PSHUFHW", FEATURE.SSE2, "F3 0F 70", (_, source, immediate) => selectWords(source, immediate, 1)),
  withImmediate("SHUFPS", FEATURE.SSE, "NP 0F C6", shuffleSingles),
  withImmediate("SHUFPD", FEATURE.SSE2, "66 0F C6", shuffleDoubles),
  packed("PSHUFB", FEATURE.SSSE3, "66 0F 38 00", (a, b) => shuffleBytes(a, b, 16)),
  withImmediate("PALIGNR", FEATURE.SSSE3, "66 0F 3A 0F", align),
  packed("UNPCKLPS", FEATURE.SSE, "NP 0F 14", (a, b) => shuffleLanes(a, b, 4, [0, 4, 1, 5])),
  packed("UNPCKHPS", FEATURE.SSE, "NP 0F 15", (a, b) => shuffleLanes(a, b, 4, [2, 6, 3, 7])),
  packed("UNPCKLPD", FEATURE.SSE2, "66 0F 14", (a, b) => shuffleLanes(a, b, 8, [0, 2])),
  packed("UNPCKHPD", FEATURE.SSE2, "66 0F 15", (a, b) => shuffleLanes(a, b, 8, [1, 3])),

  withImmediate("BLENDPS", FEATURE.SSE41, "66 0F 3A 0C", blend(32)),
  withImmediate("BLENDPD", FEATURE.SSE41, "66 0F 3A 0D", blend(64)),
  withImmediate("PBLENDW", FEATURE.SSE41, "66 0F 3A 0E", blend(16)),
  blendBySign("PBLENDVB", "66 0F 38 10", 8),
  blendBySign("BLENDVPS", "66 0F 38 14", 32),
  blendBySign("BLENDVPD", "66 0F 38 15", 64),

  extract("PEXTRW", FEATURE.SSE2, ["66 0F C5 /r: Gd, Ux, Ib"], 16),
  extract("PEXTRB", FEATURE.SSE41, ["66 0F 3A 14 /r: Rd, Vx, Ib", "66 0F 3A 14 /r: Mb, Vx, Ib"], 8),
  extract("PEXTRW", FEATURE.SSE41, ["66 0F 3A 15 /r: Rd, Vx, Ib", "66 0F 3A 15 /r: Mw, Vx, Ib"], 16),
  extract("PEXTRD", FEATURE.SSE41, ["66 0F 3A 16 /r: Ey, Vx, Ib"]),
  extract("EXTRACTPS", FEATURE.SSE41, ["66 0F 3A 17 /r: Ed, Vx, Ib"], 32),
  insert("PINSRW", FEATURE.SSE2, ["66 0F C4 /r: Vx, Rd, Ib", "66 0F C4 /r: Vx, Mw, Ib"], 16),
  insert("PINSRB", FEATURE.SSE41, ["66 0F 3A 20 /r: Vx, Rd, Ib", "66 0F 3A 20 /r: Vx, Mb, Ib"], 8),
  insert("PINSRD", FEATURE.SSE41, ["66 0F 3A 22 /r: Vx, Ey, Ib"]),
  {
    name: "INSERTPS",
    rows: ["66 0F 3A 21 /r: Vx, Ux, Ib", "66 0F 3A 21 /r: Vx, Md, Ib"],
    feature: FEATURE.SSE41,
    semantics: insertSingle,
  },
];
