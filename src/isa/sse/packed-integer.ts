// Packed integer operations of two operands as data, for XMM and MMX registers alike: each is written once over 128 bits, and the MMX
// form takes the low half (Intel SDM Vol. 1 9.4, 11.4.2, 12.6, 12.10; the pages of the instructions in Vol. 2B).

import type { Code } from "../../wasm/code.ts";
import { op, type Val, v128 } from "../../wasm/value.ts";
import { FEATURE } from "./feature.ts";
import { bitselect, IOTA, shuffle, shuffleLanes, splat, ZERO } from "./state.ts";

/** The result from destination and source; both are fixed values. */
export type Packed = (destination: Val, source: Val, c: Code) => Val;

/** How the MMX form follows: `lanes` compute within each lane; `halves` take both operands as the halves of one vector, once for each
 *  operand; `high` is in the high half of the result; `none` does not exist. */
export type MmxForm = "lanes" | "halves" | "high" | "none";

export interface PackedInteger {
  readonly name: string;
  readonly opcode: string;
  readonly compute: Packed;
  readonly feature: string;
  readonly mmx: MmxForm;
  readonly mmxFeature: string;
}

const low32 = v128(0xffff_ffffn, 0xffff_ffffn);

/** A WebAssembly operation that does the same. */
function direct(operation: string): Packed {
  return (a, b) => op(operation, a, b);
}

/** Even lanes of `width` bytes of both operands, then the odd ones, combined. */
function horizontal(width: 2 | 4, operation: string): Packed {
  const count = 16 / width;
  const even = Array.from({ length: count }, (_, i) => 2 * i);
  const odd = even.map((lane) => lane + 1);
  return (a, b) => op(operation, shuffleLanes(a, b, width, even), shuffleLanes(a, b, width, odd));
}

/** Interleaves lanes of `width` bytes of the low (0) or high (1) halves. */
function unpack(width: number, part: 0 | 1): Packed {
  const count = 16 / width;
  const first = (part * count) / 2;
  const order = Array.from({ length: count }, (_, i) => first + (i >> 1) + (i % 2) * count);
  return (a, b) => shuffleLanes(a, b, width, order);
}

/** High halves of the products of words. */
function multiplyHigh(sign: "s" | "u"): Packed {
  return (a, b) =>
    shuffle(
      op(`i32x4.extmul_low_i16x8_${sign}`, a, b),
      op(`i32x4.extmul_high_i16x8_${sign}`, a, b),
      Array.from({ length: 16 }, (_, i) => (i >> 1) * 4 + 2 + (i % 2)),
    );
}

/** 64-bit products of doublewords 0 and 2. */
function multiplyEven(sign: "s" | "u"): Packed {
  const even = [0, 2, 0, 2];
  return (a, b) => op(`i64x2.extmul_low_i32x4_${sign}`, shuffleLanes(a, a, 4, even), shuffleLanes(b, b, 4, even));
}

/** Rounded high halves of products; unlike the WebAssembly operation, -1 * -1 wraps around to -1. */
const multiplyRound: Packed = (a, b) => {
  const least = splat(16, 0x8000n);
  const wraps = op("v128.and", op("i16x8.eq", a, least), op("i16x8.eq", b, least));
  return op("v128.xor", op("i16x8.q15mulr_sat_s", a, b), wraps);
};

/** Unsigned bytes of the destination times signed bytes of the source, neighbours added with saturation. */
const multiplyAddBytes: Packed = (a, b, c) => {
  const product = (part: "low" | "high"): Val =>
    c.let(op("i16x8.mul", op(`i16x8.extend_${part}_i8x16_u`, a), op(`i16x8.extend_${part}_i8x16_s`, b)));
  const low = product("low");
  const high = product("high");
  return horizontal(2, "i16x8.add_sat_s")(low, high, c);
};

/** Sums of the absolute differences of eight bytes each. */
const sumDifferences: Packed = (a, b, c) => {
  const difference = op("v128.or", op("i8x16.sub_sat_u", a, b), op("i8x16.sub_sat_u", b, a));
  const sums = c.let(op("i32x4.extadd_pairwise_i16x8_u", op("i16x8.extadd_pairwise_i8x16_u", difference)));
  return op("i64x2.add", op("v128.and", sums, low32), op("i64x2.shr_u", sums, 32));
};

/** The destination negated where the source is negative, zero where it is zero. */
function sign(shape: string): Packed {
  return (a, b, c) => {
    const negative = c.let(op(`${shape}.lt_s`, b, ZERO));
    const signed = op(`${shape}.sub`, op("v128.xor", a, negative), negative);
    return op("v128.andnot", signed, op(`${shape}.eq`, b, ZERO));
  };
}

function absolute(shape: string): Packed {
  return (_, b) => op(`${shape}.abs`, b);
}

type Entry = readonly [name: string, opcode: string, compute: Packed];

function entries(list: readonly Entry[], feature: string, mmx: MmxForm, mmxFeature: string): PackedInteger[] {
  return list.map(([name, opcode, compute]) => ({ name, opcode, compute, feature, mmx, mmxFeature }));
}

export const PACKED_INTEGER: readonly PackedInteger[] = [
  ...entries(
    [
      ["PCMPGTB", "0F 64", direct("i8x16.gt_s")],
      ["PCMPGTW", "0F 65", direct("i16x8.gt_s")],
      ["PCMPGTD", "0F 66", direct("i32x4.gt_s")],
      ["PCMPEQB", "0F 74", direct("i8x16.eq")],
      ["PCMPEQW", "0F 75", direct("i16x8.eq")],
      ["PCMPEQD", "0F 76", direct("i32x4.eq")],
      ["PMULLW", "0F D5", direct("i16x8.mul")],
      ["PSUBUSB", "0F D8", direct("i8x16.sub_sat_u")],
      ["PSUBUSW", "0F D9", direct("i16x8.sub_sat_u")],
      ["PAND", "0F DB", direct("v128.and")],
      ["PADDUSB", "0F DC", direct("i8x16.add_sat_u")],
      ["PADDUSW", "0F DD", direct("i16x8.add_sat_u")],
      ["PANDN", "0F DF", (a, b) => op("v128.andnot", b, a)],
      ["PMULHW", "0F E5", multiplyHigh("s")],
      ["PSUBSB", "0F E8", direct("i8x16.sub_sat_s")],
      ["PSUBSW", "0F E9", direct("i16x8.sub_sat_s")],
      ["POR", "0F EB", direct("v128.or")],
      ["PADDSB", "0F EC", direct("i8x16.add_sat_s")],
      ["PADDSW", "0F ED", direct("i16x8.add_sat_s")],
      ["PXOR", "0F EF", direct("v128.xor")],
      ["PMADDWD", "0F F5", direct("i32x4.dot_i16x8_s")],
      ["PSUBB", "0F F8", direct("i8x16.sub")],
      ["PSUBW", "0F F9", direct("i16x8.sub")],
      ["PSUBD", "0F FA", direct("i32x4.sub")],
      ["PADDB", "0F FC", direct("i8x16.add")],
      ["PADDW", "0F FD", direct("i16x8.add")],
      ["PADDD", "0F FE", direct("i32x4.add")],
    ],
    FEATURE.SSE2,
    "lanes",
    FEATURE.MMX,
  ),
  ...entries(
    [
      ["PMINUB", "0F DA", direct("i8x16.min_u")],
      ["PMAXUB", "0F DE", direct("i8x16.max_u")],
      ["PAVGB", "0F E0", direct("i8x16.avgr_u")],
      ["PAVGW", "0F E3", direct("i16x8.avgr_u")],
      ["PMULHUW", "0F E4", multiplyHigh("u")],
      ["PMINSW", "0F EA", direct("i16x8.min_s")],
      ["PMAXSW", "0F EE", direct("i16x8.max_s")],
      ["PSADBW", "0F F6", sumDifferences],
    ],
    FEATURE.SSE2,
    "lanes",
    FEATURE.SSE,
  ),
  ...entries(
    [
      ["PADDQ", "0F D4", direct("i64x2.add")],
      ["PMULUDQ", "0F F4", multiplyEven("u")],
      ["PSUBQ", "0F FB", direct("i64x2.sub")],
    ],
    FEATURE.SSE2,
    "lanes",
    FEATURE.SSE2,
  ),
  ...entries(
    [
      ["PACKSSWB", "0F 63", direct("i8x16.narrow_i16x8_s")],
      ["PACKUSWB", "0F 67", direct("i8x16.narrow_i16x8_u")],
      ["PACKSSDW", "0F 6B", direct("i16x8.narrow_i32x4_s")],
    ],
    FEATURE.SSE2,
    "halves",
    FEATURE.MMX,
  ),
  ...entries(
    [
      ["PUNPCKHBW", "0F 68", unpack(1, 1)],
      ["PUNPCKHWD", "0F 69", unpack(2, 1)],
      ["PUNPCKHDQ", "0F 6A", unpack(4, 1)],
    ],
    FEATURE.SSE2,
    "high",
    FEATURE.MMX,
  ),
  ...entries(
    [
      ["PUNPCKLBW", "0F 60", unpack(1, 0)],
      ["PUNPCKLWD", "0F 61", unpack(2, 0)],
      ["PUNPCKLDQ", "0F 62", unpack(4, 0)],
    ],
    FEATURE.SSE2,
    "lanes",
    FEATURE.MMX,
  ),
  ...entries(
    [
      ["PUNPCKLQDQ", "0F 6C", unpack(8, 0)],
      ["PUNPCKHQDQ", "0F 6D", unpack(8, 1)],
    ],
    FEATURE.SSE2,
    "none",
    FEATURE.SSE2,
  ),
  ...entries(
    [
      ["PMADDUBSW", "0F 38 04", multiplyAddBytes],
      ["PSIGNB", "0F 38 08", sign("i8x16")],
      ["PSIGNW", "0F 38 09", sign("i16x8")],
      ["PSIGND", "0F 38 0A", sign("i32x4")],
      ["PMULHRSW", "0F 38 0B", multiplyRound],
      ["PABSB", "0F 38 1C", absolute("i8x16")],
      ["PABSW", "0F 38 1D", absolute("i16x8")],
      ["PABSD", "0F 38 1E", absolute("i32x4")],
    ],
    FEATURE.SSSE3,
    "lanes",
    FEATURE.SSSE3,
  ),
  ...entries(
    [
      ["PHADDW", "0F 38 01", horizontal(2, "i16x8.add")],
      ["PHADDD", "0F 38 02", horizontal(4, "i32x4.add")],
      ["PHADDSW", "0F 38 03", horizontal(2, "i16x8.add_sat_s")],
      ["PHSUBW", "0F 38 05", horizontal(2, "i16x8.sub")],
      ["PHSUBD", "0F 38 06", horizontal(4, "i32x4.sub")],
      ["PHSUBSW", "0F 38 07", horizontal(2, "i16x8.sub_sat_s")],
    ],
    FEATURE.SSSE3,
    "halves",
    FEATURE.SSSE3,
  ),
  ...entries(
    [
      ["PMULDQ", "0F 38 28", multiplyEven("s")],
      ["PCMPEQQ", "0F 38 29", direct("i64x2.eq")],
      ["PACKUSDW", "0F 38 2B", direct("i16x8.narrow_i32x4_u")],
      ["PMINSB", "0F 38 38", direct("i8x16.min_s")],
      ["PMINSD", "0F 38 39", direct("i32x4.min_s")],
      ["PMINUW", "0F 38 3A", direct("i16x8.min_u")],
      ["PMINUD", "0F 38 3B", direct("i32x4.min_u")],
      ["PMAXSB", "0F 38 3C", direct("i8x16.max_s")],
      ["PMAXSD", "0F 38 3D", direct("i32x4.max_s")],
      ["PMAXUW", "0F 38 3E", direct("i16x8.max_u")],
      ["PMAXUD", "0F 38 3F", direct("i32x4.max_u")],
      ["PMULLD", "0F 38 40", direct("i32x4.mul")],
    ],
    FEATURE.SSE41,
    "none",
    FEATURE.SSE41,
  ),
  ...entries([["PCMPGTQ", "0F 38 37", direct("i64x2.gt_s")]], FEATURE.SSE42, "none", FEATURE.SSE42),
];

/** PSHUFB: an index with bit 7 set gives zero, others count modulo the register's width in bytes (SDM Vol. 2B PSHUFB). */
export function shuffleBytes(value: Val, indexes: Val, width: 8 | 16): Val {
  return op("i8x16.swizzle", value, op("v128.and", indexes, splat(8, BigInt(0x80 | (width - 1)))));
}

/** Shifts of lanes by one count for all: name, opcode of the form with the count in a register, opcode and digit with an immediate,
 *  lane width, WebAssembly operation. */
export interface PackedShift {
  readonly name: string;
  readonly byRegister: string;
  readonly byImmediate: string;
  readonly bits: 16 | 32 | 64;
  readonly operation: string;
}

function shift(name: string, register: string, immediate: string, bits: 16 | 32 | 64, operation: string): PackedShift {
  return { name, byRegister: register, byImmediate: immediate, bits, operation };
}

export const PACKED_SHIFTS: readonly PackedShift[] = [
  shift("PSRLW", "0F D1 /r", "0F 71 /2", 16, "i16x8.shr_u"),
  shift("PSRLD", "0F D2 /r", "0F 72 /2", 32, "i32x4.shr_u"),
  shift("PSRLQ", "0F D3 /r", "0F 73 /2", 64, "i64x2.shr_u"),
  shift("PSRAW", "0F E1 /r", "0F 71 /4", 16, "i16x8.shr_s"),
  shift("PSRAD", "0F E2 /r", "0F 72 /4", 32, "i32x4.shr_s"),
  shift("PSLLW", "0F F1 /r", "0F 71 /6", 16, "i16x8.shl"),
  shift("PSLLD", "0F F2 /r", "0F 72 /6", 32, "i32x4.shl"),
  shift("PSLLQ", "0F F3 /r", "0F 73 /6", 64, "i64x2.shl"),
];

/** Shifts by a count of 32 or 64 bits: one as large as the lane or larger gives zeros, or copies of the sign (SDM Vol. 1 9.4.6). */
export function shiftLanes(kind: PackedShift, value: Val, count: Val, c: Code): Val {
  const inRange = c.let(count.ltU(kind.bits));
  const amount = count.wrap();
  if (kind.operation.endsWith("shr_s")) {
    const limit = c.let(inRange.mul(-1));
    return op(kind.operation, value, amount.and(limit).or(limit.not().and(kind.bits - 1)));
  }
  return bitselect(op(kind.operation, value, amount), ZERO, op("i32x4.splat", inRange.mul(-1)));
}

/** Indexes for a byte shift: byte i comes from i + distance; those outside the vector give zero. */
export function byteShift(value: Val, distance: Val): Val {
  return op("i8x16.swizzle", value, op("i8x16.add", IOTA, op("i8x16.splat", distance)));
}
