// Fixed-point arithmetic of 128 bits for the transcendental functions: fractions hi : lo / 2^128 in [0, 1). Products and reciprocals are right to
// 2^-118, which leaves some 50 bits beyond the 64 that an instruction gives.

import { i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { divideWide, multiplyWide } from "../softfloat/significand.ts";

export interface Fraction {
  readonly hi: Val;
  readonly lo: Val;
}

const SCALE = 128n;
/** Bits beyond those of a fraction in which constants are computed. */
const GUARD = 32n;

/** A constant from its value times 2^(128 + GUARD). */
function rounded(value: bigint): bigint {
  return (value + (1n << (GUARD - 1n))) >> GUARD;
}

const ONE = 1n << (SCALE + GUARD);

/** atan(n / d) times 2^(128 + GUARD) by its series. */
function arctangent(n: bigint, d: bigint): bigint {
  let sum = 0n;
  let power = (ONE * n) / d;
  for (let k = 1n; power !== 0n; k += 2n) {
    sum += (k & 2n) === 0n ? power / k : -(power / k);
    power = (power * n * n) / (d * d);
  }
  return sum;
}

/** Machin's formula. */
const PI = 16n * arctangent(1n, 5n) - 4n * arctangent(1n, 239n);

/** 2 atanh(1 / 3). */
function naturalLogarithmOf2(): bigint {
  let sum = 0n;
  let power = ONE / 3n;
  for (let k = 1n; power !== 0n; k += 2n) {
    sum += (2n * power) / k;
    power /= 9n;
  }
  return sum;
}

const LN2 = naturalLogarithmOf2();

/** Constants as fractions of 2^128. */
export const CONSTANT = {
  LN2: rounded(LN2),
  /** log2(e) / 2. */
  HALF_LOG2_E: rounded((ONE * ONE) / LN2 / 2n),
  PI_4: rounded(PI / 4n),
} as const;

/** 1 / (n + 1)!, ... for n from `from` on in steps of `step`, until they vanish. */
export function inverseFactorials(from: number, step: number): bigint[] {
  const made: bigint[] = [];
  for (let n = from; ; n += step) {
    let factorial = 1n;
    for (let k = 2n; k <= BigInt(n); k++) factorial *= k;
    const value = rounded(ONE / factorial);
    if (value === 0n) return made;
    made.push(value);
  }
}

/** 1 / n for `count` odd n from 3 on. */
export function inverseOdds(count: number): bigint[] {
  return Array.from({ length: count }, (_, n) => rounded(ONE / BigInt(2 * n + 3)));
}

/** atan(n / d) of a fraction up to 1, for tables. */
export function arctangentOf(n: number, d: number): bigint {
  return n === d ? rounded(PI / 4n) : rounded(arctangent(BigInt(n), BigInt(d)));
}

export function fraction(value: bigint): Fraction {
  return { hi: i64(BigInt.asIntN(64, value >> 64n)), lo: i64(BigInt.asIntN(64, value)) };
}

/** (aHi, aLo, bHi, bLo) -> product (hi, lo). */
const multiplyFractions = helper(
  "multiplyFractions",
  ["i64", "i64", "i64", "i64"],
  ["i64", "i64"],
  (x, aHi, aLo, bHi, bLo) => {
    const { c } = x;
    const [high, low] = x.callMany(multiplyWide, aHi, bHi);
    const [first] = x.callMany(multiplyWide, aHi, bLo);
    const [second] = x.callMany(multiplyWide, aLo, bHi);
    const sum = c.let(low.add(first));
    const carry = c.let(sum.ltU(low).zx());
    const total = c.let(sum.add(second));
    x.done(high.add(carry).add(total.ltU(sum).zx()), total);
  },
);

export function multiply(x: Env, a: Fraction, b: Fraction): Fraction {
  const [hi, lo] = x.callMany(multiplyFractions, a.hi, a.lo, b.hi, b.lo);
  return { hi, lo };
}

/** The sum modulo 1. */
export function add(x: Env, a: Fraction, b: Fraction): Fraction {
  const { c } = x;
  const lo = c.let(a.lo.add(b.lo));
  return { hi: c.let(a.hi.add(b.hi).add(lo.ltU(a.lo).zx())), lo };
}

export function subtract(x: Env, a: Fraction, b: Fraction): Fraction {
  const { c } = x;
  const lo = c.let(a.lo.sub(b.lo));
  return { hi: c.let(a.hi.sub(b.hi).sub(a.lo.ltU(b.lo).zx())), lo };
}

/** a + b, or a - b where the i32 is not zero. */
export function addOrSubtract(x: Env, negative: Val, a: Fraction, b: Fraction): Fraction {
  const { c } = x;
  const sign = c.let(i64(0).sub(negative.zx()));
  const lo = c.let(b.lo.xor(sign).sub(sign));
  const hi = c.let(b.hi.xor(sign).add(sign.and(b.lo.eqz().zx())));
  return add(x, a, { hi, lo });
}

/** Half of it. */
export function halve(x: Env, a: Fraction): Fraction {
  const { c } = x;
  return { hi: c.let(a.hi.shrU(1)), lo: c.let(a.lo.shrU(1).or(a.hi.shl(63))) };
}

/** (hi, lo) of d in [1/2, 1) -> 1 / (2 d), which for d = 1/2 is as close to 1 as there is. One step of Newton's method from 64 bits. */
const reciprocalFraction = helper("reciprocalFraction", ["i64", "i64"], ["i64", "i64"], (x, hi, lo) => {
  const { c } = x;
  c.if(hi.shl(1).or(lo).eqz(), () => x.done(-1n, -1n));
  // 1 / d = 1 + v / 2^64 to begin with.
  const [v] = x.callMany(divideWide, hi.not(), i64(-1), hi);
  const [productHigh, productLow] = x.callMany(multiplyFractions, hi, lo, v, 0);
  // The error 1 - d (1 + v / 2^64), which is small, of either sign.
  const sum = add(x, { hi, lo }, { hi: productHigh, lo: productLow });
  const errorLow = c.let(sum.lo.neg());
  const errorHigh = c.let(sum.hi.add(sum.lo.ne(0).zx()).neg());
  // Times the estimate, with eight bits less, so that it fits in 64.
  const error = c.let(errorHigh.shl(56).or(errorLow.shrU(8)));
  const negative = c.let(error.ltS(0));
  const [scaled] = x.callMany(multiplyWide, select(negative, error.neg(), error), v);
  const correction = c.let(error.add(select(negative, scaled.neg(), scaled)));
  const change = { hi: c.let(correction.shrS(56)), lo: c.let(correction.shl(8)) };
  const fixed = add(x, { hi: v, lo: i64(0) }, change);
  x.done(fixed.hi.shrU(1).or(1n << 63n), fixed.lo.shrU(1).or(fixed.hi.shl(63)));
});

export function reciprocal(x: Env, d: Fraction): Fraction {
  const [hi, lo] = x.callMany(reciprocalFraction, d.hi, d.lo);
  return { hi, lo };
}

/** c0 + c1 z + c2 z^2 ..., with signs that alternate where the i32 `alternates` is not zero. Terms must decrease. */
export function polynomial(x: Env, z: Fraction, coefficients: readonly bigint[], alternates: Val): Fraction {
  let sum = fraction(coefficients[coefficients.length - 1]);
  for (let n = coefficients.length - 2; n >= 0; n--) {
    sum = addOrSubtract(x, alternates, fraction(coefficients[n]), multiply(x, z, sum));
  }
  return sum;
}
