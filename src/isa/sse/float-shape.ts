// The two floating-point formats as WebAssembly has them, scalar and packed, and tests of what kind of number a value is.

import { f32, f64, laneOp, op, type Val } from "../../wasm/value.ts";
import { BINARY32, BINARY64, type Format } from "../softfloat/format.ts";
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
