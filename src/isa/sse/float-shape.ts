// The two floating-point formats as WebAssembly has them, scalar and packed, and tests of what kind of number a value is.

import { f32, f64, i32, laneOp, op, select, type Val } from "../../wasm/value.ts";
import type { Env } from "../semantics.ts";
import { BINARY32, BINARY64, type Format } from "../softfloat/format.ts";
import { settled } from "./float-exceptions.ts";
import { splat } from "./state.ts";

export interface Shape {
  readonly format: Format;
  readonly scalar: "f32" | "f64";
  readonly packed: "f32x4" | "f64x2";
  readonly integer: "i32" | "i64";
  readonly integers: "i32x4" | "i64x2";
  readonly lanes: 2 | 4;
  /** Least normal and largest finite number. */
  readonly least: number;
  readonly largest: number;
  /** Operand size letter. */
  readonly letter: "d" | "q";
}

export const SINGLE: Shape = {
  format: BINARY32,
  scalar: "f32",
  packed: "f32x4",
  integer: "i32",
  integers: "i32x4",
  lanes: 4,
  least: 2 ** -126,
  largest: (2 - 2 ** -23) * 2 ** 127,
  letter: "d",
};

export const DOUBLE: Shape = {
  format: BINARY64,
  scalar: "f64",
  packed: "f64x2",
  integer: "i64",
  integers: "i64x2",
  lanes: 2,
  least: 2 ** -1022,
  largest: Number.MAX_VALUE,
  letter: "q",
};

/** Bits as an integer to a number. */
export function toFloat(s: Shape, bits: Val): Val {
  return op(`${s.scalar}.reinterpret_${s.integer}`, bits);
}

export function toBits(s: Shape, value: Val): Val {
  return op(`${s.integer}.reinterpret_${s.scalar}`, value);
}

/** Bits of 64 as an integer of the format's own width. */
export function narrow(s: Shape, bits: Val): Val {
  return s.integer === "i32" ? bits.wrap() : bits;
}

export function floatLane(s: Shape, vector: Val, lane: number): Val {
  return laneOp(`${s.packed}.extract_lane`, [lane], vector);
}

/** A lane's bits as i64, zero-extended. */
export function bitsLane(s: Shape, vector: Val, lane: number): Val {
  return laneOp(`${s.integers}.extract_lane`, [lane], vector).zx();
}

/** Replaces a lane by bits in an integer of the format's own width. */
export function setLane(s: Shape, vector: Val, lane: number, bits: Val): Val {
  return laneOp(`${s.integers}.replace_lane`, [lane], vector, bits);
}

function constant(s: Shape, value: number): Val {
  return s.scalar === "f32" ? f32(value) : f64(value);
}

/** Scalar conditions (i32) on a fixed value; a NaN satisfies none of them. */
export const scalar = {
  abs: (s: Shape, value: Val): Val => op(`${s.scalar}.abs`, value),
  /** Normal or infinite. */
  atLeastNormal: (s: Shape, value: Val): Val => op(`${s.scalar}.ge`, scalar.abs(s, value), constant(s, s.least)),
  /** Finite, and larger than the least normal number: what that was rounded from may have been tiny. */
  safeResult: (s: Shape, value: Val): Val =>
    op(`${s.scalar}.gt`, scalar.abs(s, value), constant(s, s.least)).and(
      op(`${s.scalar}.le`, scalar.abs(s, value), constant(s, s.largest)),
    ),
  isZero: (s: Shape, value: Val): Val => op(`${s.scalar}.eq`, value, constant(s, 0)),
  /** Zero, normal or infinite. */
  ordinary: (s: Shape, value: Val): Val => scalar.atLeastNormal(s, value).or(scalar.isZero(s, value)),
};

/** Exponents of results that raise nothing but the precision exception: not those of zeros, denormal numbers, infinities and NaNs, nor
 *  that of the least normal number, which what is tiny may have been rounded to. They are looked at in 32 bits without the sign: where the
 *  exponent starts there, and how many values there are from exponent 2 on. */
function plainExponents(s: Shape): { readonly shift: number; readonly first: number; readonly count: number } {
  const shift = s === SINGLE ? 24 : 21;
  const largest = 2 * s.format.bias + 1;
  return { shift, first: 2 << shift, count: ((largest - 2) << shift) >>> 0 };
}

/** Conditions for which the host's result is the guest's: cheap ones, which may be wrongly false (for zeros, mostly). */
export const quick = {
  /** A scalar result is plain, and MXCSR asks for nothing but what the host does. */
  scalarResult(x: Env, s: Shape, value: Val): Val {
    const { first, count } = plainExponents(s);
    const bits = toBits(s, value);
    const high = s.integer === "i64" ? bits.shrU(32).wrap() : bits;
    const limit = x.control(`plain ${s.scalar}`, () => select(settled(x), i32(count), 0));
    return high.shl(1).sub(first).ltU(limit);
  },
  /** A scalar is not denormal; a NaN or an infinity is not, but shows in the result. */
  scalarOperand(s: Shape, value: Val): Val {
    const doubled = toBits(s, value).shl(1).sub(1);
    return doubled.geU(s.format.leastNormal * 2n - 1n);
  },
  /** All lanes of results and operands are plain, and MXCSR asks for nothing but what the host does. */
  packed(x: Env, s: Shape, values: readonly Val[]): Val {
    const { first, count } = plainExponents(s);
    // Unsigned comparison by a signed one: both sides are moved by 2^31.
    const offset = x.control(`offset ${s.packed}`, () => splat(32, BigInt(0x80000000 - first)));
    const moved = values.map((value) => op("i32x4.add", op("i32x4.shl", value, 1), offset));
    const limit = x.control(`plain ${s.packed}`, () =>
      op("i32x4.splat", select(settled(x), i32(count - 0x80000000), i32(-0x80000000))),
    );
    const mask = op(
      "i32x4.lt_s",
      moved.reduce((a, b) => op("i32x4.max_s", a, b)),
      limit,
    );
    return op(`${s.integers}.bitmask`, mask).eq(2 ** s.lanes - 1);
  },
};

function constants(s: Shape, value: number): Val {
  const bits =
    s.scalar === "f32"
      ? BigInt(new Uint32Array(new Float32Array([value]).buffer)[0])
      : new BigUint64Array(new Float64Array([value]).buffer)[0];
  return splat(s.format.bits, bits);
}

/** The same as masks of lanes. */
export const packed = {
  abs: (s: Shape, value: Val): Val => op(`${s.packed}.abs`, value),
  safeResult: (s: Shape, value: Val): Val =>
    op(
      "v128.and",
      op(`${s.packed}.gt`, packed.abs(s, value), constants(s, s.least)),
      op(`${s.packed}.le`, packed.abs(s, value), constants(s, s.largest)),
    ),
  isZero: (s: Shape, value: Val): Val => op(`${s.packed}.eq`, value, constants(s, 0)),
  ordinary: (s: Shape, value: Val): Val =>
    op("v128.or", op(`${s.packed}.ge`, packed.abs(s, value), constants(s, s.least)), packed.isZero(s, value)),
  all: (s: Shape, mask: Val): Val => op(`${s.integers}.all_true`, mask),
};
