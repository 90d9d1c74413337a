// What all SSE instructions share: whether they may run, and the shapes of constants
// (Intel SDM Vol. 2A 2.5 "Exceptions of SSE instructions"; Vol. 3A 2.5, 13.1).

import { laneOp, op, type Val, v128 } from "../../wasm/value.ts";
import { faultingHelper } from "../helper.ts";
import type { Sem } from "../semantics.ts";
import { CR0, CR0_BIT, CR4, CR4_BIT, VECTOR } from "../state.ts";

const sseUnusable = faultingHelper("sseUnusable", [], [], (x) => {
  x.raiseIf(x.get(CR0).and(CR0_BIT.EM).ne(0), VECTOR.UD);
  x.raiseIf(x.get(CR4).and(CR4_BIT.OSFXSR).eqz(), VECTOR.UD);
  x.raise(VECTOR.NM);
});

/** Raises #UD where CR0.EM = 1 or CR4.OSFXSR = 0, then #NM where CR0.TS = 1. First in every instruction that uses XMM registers. */
export function useSse(x: Sem): void {
  const unusable = (): Val => {
    const disabled = x.get(CR0).and(CR0_BIT.EM | CR0_BIT.TS);
    return disabled.or(x.get(CR4).and(CR4_BIT.OSFXSR).xor(CR4_BIT.OSFXSR));
  };
  x.require("sse", unusable, () => x.invoke(sseUnusable));
}

export const ZERO = v128(0n, 0n);
export const ONES = v128(-1n, -1n);

/** A vector constant that repeats one lane. */
export function splat(bits: 8 | 16 | 32 | 64, value: bigint): Val {
  let half = BigInt.asUintN(bits, value);
  for (let width: number = bits; width < 64; width *= 2) half |= half << BigInt(width);
  return v128(half, half);
}

/** A vector constant of sixteen bytes, eight words or four doublewords. */
export function lanes(values: readonly number[]): Val {
  const width = BigInt(128 / values.length);
  let all = 0n;
  for (const [i, value] of values.entries()) all |= BigInt.asUintN(Number(width), BigInt(value)) << (BigInt(i) * width);
  return v128(BigInt.asUintN(64, all), all >> 64n);
}

/** The bytes 0 to 15 in order. */
export const IOTA = lanes(Array.from({ length: 16 }, (_, i) => i));

/** Bytes of `a` (0 to 15) and `b` (16 to 31) by constant numbers. */
export function shuffle(a: Val, b: Val, bytes: readonly number[]): Val {
  return laneOp("i8x16.shuffle", bytes, a, b);
}

/** Lanes of `width` bytes of `a` and `b` by constant numbers, counted on from `a` to `b`. */
export function shuffleLanes(a: Val, b: Val, width: number, numbers: readonly number[]): Val {
  return shuffle(
    a,
    b,
    numbers.flatMap((lane) => Array.from({ length: width }, (_, i) => lane * width + i)),
  );
}

/** The low or high 64 bits of a vector. */
export function half(value: Val, number: 0 | 1): Val {
  return laneOp("i64x2.extract_lane", [number], value);
}

/** A vector of two 64-bit halves. */
export function join(low: Val, high: Val): Val {
  return laneOp("i64x2.replace_lane", [1], op("i64x2.splat", low), high);
}

/** Zero-extends an i32 or i64 to a vector. */
export function zeroExtend(value: Val): Val {
  return value.type === "i64"
    ? laneOp("i64x2.replace_lane", [0], ZERO, value)
    : laneOp("i32x4.replace_lane", [0], ZERO, value);
}

export function bitselect(whenOne: Val, whenZero: Val, mask: Val): Val {
  return op("v128.bitselect", whenOne, whenZero, mask);
}
