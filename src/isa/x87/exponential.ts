// Powers and logarithms of two: F2XM1, FYL2X, FYL2XP1 (Intel SDM Vol. 1 8.3.7, 8.3.10; Vol. 2A F2XM1, FYL2X, FYL2XP1). Each gives significand,
// sign and exponent, and flags for the status word. Results are those of an error far below half a unit in the last place, then rounded; all
// that are not exact by a table of the manual set PE.

import type { Local } from "../../wasm/code.ts";
import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { addMagnitudes, normalise, shiftRightJam, subtractMagnitudes } from "../softfloat/significand.ts";
import { denormalFlag, invalid, propagateOne, x87Propagate } from "./arithmetic.ts";
import {
  add,
  addOrSubtract,
  CONSTANT,
  type Fraction,
  fraction,
  halve,
  inverseFactorials,
  inverseOdds,
  multiply,
  polynomial,
  reciprocal,
} from "./fixed.ts";
import { BIAS, exponentOf, KIND, MAX_EXPONENT, signOf, TOP_BIT, x87Kind, x87Pack, x87Unpack } from "./format.ts";
import { STATUS } from "./state.ts";

const RESULT = ["i64", "i32", "i32"] as const;
const NO: Val = i32(0);

/** Gives (-1)^sign times f times 2^e, with `flags`; `inexact` (i64): whether bits beyond those of f follow. */
export function doneFraction(x: Env, sign: Val, e: Val, f: Fraction, inexact: Val, flags: Val): void {
  const [exponent, hi, lo] = x.callMany(normalise, e.sub(1), f.hi, f.lo);
  const [sig, se, raised] = x.callMany(x87Pack, sign, exponent, hi, lo.or(inexact), 64);
  // What is not told from inexact raises UE too where it is tiny.
  const tiny = exponentOf(se).eqz().mul(STATUS.UE);
  x.done(sig, se, raised.or(flags).or(tiny).or(STATUS.PE));
}

/** f / 2^n, n at least 0. */
export function scaleDown(x: Env, f: Fraction, n: Val): Fraction {
  const [hi, lo] = x.callMany(shiftRightJam, f.hi, f.lo, n);
  return { hi, lo };
}

/** 1/2!, 1/3!, ...: (e^y - 1) / y less its first term, by y. */
const EXPONENTIAL = inverseFactorials(2, 1);
const ARC_TERMS = inverseOdds(26);

/** 2^x - 1 for |x| up to 1. Beyond, where the manual leaves it undefined, x itself. */
export const x87PowerLess1 = helper("x87PowerLess1", ["i64", "i32"], RESULT, (x, sig, se) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  c.if(kind.geU(KIND.QNAN), () => propagateOne(x, sig, kind, se), undefined, "unlikely");
  c.if(kind.eq(KIND.ZERO), () => x.done(0, se, 0));
  const sign = c.let(signOf(se));
  c.if(kind.eq(KIND.INFINITY), () => x.done(TOP_BIT, select(sign, i32(0x8000 | BIAS), MAX_EXPONENT), 0));
  c.if(exponentOf(se).geU(BIAS), () => {
    const one = exponentOf(se).eq(BIAS).and(sig.eq(TOP_BIT));
    x.done(sig, select(one.and(sign), i32(0x8000 | (BIAS - 1)), se), STATUS.PE);
  });
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  // y = x ln 2, as a normalised fraction and a power of two.
  const product = multiply(x, { hi: normal, lo: i64(0) }, fraction(CONSTANT.LN2));
  const [ey, hi, lo] = x.callMany(normalise, e.add(1), product.hi, product.lo);
  const y = { hi, lo };
  const small = scaleDown(x, y, ey.neg());
  const rest = multiply(x, small, polynomial(x, small, EXPONENTIAL, sign));
  const half = halve(x, y);
  const result = addOrSubtract(x, sign, half, multiply(x, half, rest));
  doneFraction(x, sign, ey.add(1), result, i64(1), denormalFlag(kind));
});

/** log2((1 + s) / (1 - s)) of s = S 2^p: a fraction, which times 2^(p + 2) it is. S is at least 1/4, and p at most 0. */
const logarithmSeries = helper("x87LogarithmSeries", ["i64", "i64", "i32"], ["i64", "i64"], (x, hi, lo, p) => {
  const s = { hi, lo };
  const small = scaleDown(x, s, p.neg());
  const z = multiply(x, small, small);
  const rest = multiply(x, z, polynomial(x, z, ARC_TERMS, NO));
  const first = multiply(x, s, fraction(CONSTANT.HALF_LOG2_E));
  const sum = add(x, first, multiply(x, first, rest));
  x.done(sum.hi, sum.lo);
});

const LOGARITHM = ["i32", "i32", "i64", "i64", "i64"] as const;
/** The square root of two as a significand. */
const ROOT_2 = 0xb504f333f9de6484n;
/** Integer part of a logarithm that is not small. */
const WHOLE_BITS = 16;

/** (e, sig) -> log2 of sig / 2^63 * 2^e: (negative, exponent, hi, lo, inexact), the fraction hi : lo times 2^exponent; 0 for 1. */
const x87Logarithm = helper("x87Logarithm", ["i32", "i64"], LOGARITHM, (x, e, sig) => {
  const { c } = x;
  // m between the square roots of one half and of two: s = (m - 1) / (m + 1).
  const above = c.let(sig.gtU(ROOT_2));
  const k = c.let(e.add(above));
  const distance = c.let(select(above, sig.neg(), sig.sub(TOP_BIT)));
  const negative = c.let(k.ltS(0));
  const whole = {
    hi: c.let(
      select(negative, k.neg(), k)
        .zx()
        .shl(64 - WHOLE_BITS),
    ),
    lo: i64(0),
  };
  c.if(distance.eqz(), () => x.done(negative, WHOLE_BITS, whole.hi, 0, 0));
  const divisor = {
    hi: c.let(sig.shrU(1).add(select(above, i64(TOP_BIT), i64(1n << 62n)))),
    lo: c.let(sig.shl(63)),
  };
  const count = c.let(distance.clz());
  const s = multiply(x, { hi: c.let(distance.shl(count)), lo: i64(0) }, reciprocal(x, divisor));
  const p = c.let(count.wrap().neg());
  const [hi, lo] = x.callMany(logarithmSeries, s.hi, s.lo, p);
  c.if(k.eqz(), () => x.done(above, p.add(2), hi, lo, 1));
  const part = scaleDown(x, { hi, lo }, i32(WHOLE_BITS - 2).sub(p));
  const sum = addOrSubtract(x, negative.xor(above), whole, part);
  x.done(negative, WHOLE_BITS, sum.hi, sum.lo, 1);
});

/** (x) -> the logarithm of 1 + x, for -1 < x: exact to the last place for |x| < 1/2, where the manual asks for it. */
const x87LogarithmPlus1 = helper("x87LogarithmPlus1", ["i32", "i32", "i64"], LOGARITHM, (x, sign, e, sig) => {
  const { c } = x;
  c.if(e.geS(-1), () => {
    c.if(
      sign,
      () => {
        const [, exponent, hi] = x.callMany(subtractMagnitudes, 0, TOP_BIT, e, sig);
        x.done(...x.callMany(x87Logarithm, exponent, hi));
      },
      () => {
        const [exponent, hi] = x.callMany(addMagnitudes, 0, TOP_BIT, e, sig);
        x.done(...x.callMany(x87Logarithm, exponent, hi));
      },
    );
  });
  // s = x / (2 + x). Positive: (2 + x) / 4, else (2 + x) / 2 is in [1/2, 1).
  const shift = c.let(sign.eqz().sub(e));
  const [hi, lo] = x.callMany(shiftRightJam, sig, 0, shift);
  const half = { hi: c.let(sign.eqz().zx().shl(63)), lo: i64(0) };
  const divisor = addOrSubtract(x, sign, half, { hi, lo });
  const s = multiply(x, { hi: sig, lo: i64(0) }, reciprocal(x, divisor));
  const p = c.let(e.add(sign));
  const [sumHigh, sumLow] = x.callMany(logarithmSeries, s.hi, s.lo, p);
  x.done(sign, p.add(2), sumHigh, sumLow, 1);
});

/** The product of ST(1) and a logarithm that is not zero. */
function doneProduct(x: Env, ySig: Val, ySe: Val, logarithm: readonly Local[], flags: Val): void {
  const [negative, e, hi, lo, inexact] = logarithm;
  const [ey, y] = x.callMany(x87Unpack, ySig, ySe);
  const [exponent, high, low] = x.callMany(normalise, e, hi, lo);
  const product = multiply(x, { hi: y, lo: i64(0) }, { hi: high, lo: low });
  doneFraction(x, signOf(ySe).xor(negative), exponent.add(ey).add(1), product, inexact, flags);
}

const BINARY = ["i64", "i32", "i64", "i32"] as const;

export function propagateTwo(x: Env, a: readonly [Val, Val, Val], b: readonly [Val, Val, Val]): void {
  x.c.if(
    a[2].geU(KIND.QNAN).or(b[2].geU(KIND.QNAN)),
    () => x.done(...x.callMany(x87Propagate, ...a, ...b)),
    undefined,
    "unlikely",
  );
}

/** (x, y): y log2(x). */
export const x87TimesLogarithm = helper("x87TimesLogarithm", BINARY, RESULT, (x, sig, se, ySig, ySe) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  const yKind = x.call(x87Kind, ySig, ySe);
  propagateTwo(x, [sig, se, kind], [ySig, ySe, yKind]);
  const denormal = c.let(denormalFlag(kind, yKind));
  const ySign = c.let(ySe.and(0x8000));
  const infinite = (sign: Val, flags: Val): void => x.done(TOP_BIT, sign.or(MAX_EXPONENT), flags);
  c.if(kind.eq(KIND.ZERO), () => {
    c.if(yKind.eq(KIND.ZERO), () => invalid(x));
    infinite(ySign.xor(0x8000), select(yKind.eq(KIND.INFINITY), i32(0), STATUS.ZE));
  });
  c.if(signOf(se), () => invalid(x));
  c.if(kind.eq(KIND.INFINITY), () => {
    c.if(yKind.eq(KIND.ZERO), () => invalid(x));
    infinite(ySign, denormal);
  });
  const isOne = c.let(se.eq(BIAS).and(sig.eq(TOP_BIT)));
  const negative = c.let(exponentOf(se).ltU(BIAS).shl(15));
  c.if(yKind.eq(KIND.INFINITY), () => {
    c.if(isOne, () => invalid(x));
    infinite(ySign.xor(negative), denormal);
  });
  c.if(yKind.eq(KIND.ZERO).or(isOne), () => x.done(0, ySign.xor(negative), denormal));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  doneProduct(x, ySig, ySe, x.callMany(x87Logarithm, e, normal), denormal);
});

/** (x, y): y log2(x + 1). */
export const x87TimesLogarithmPlus1 = helper("x87TimesLogarithmPlus1", BINARY, RESULT, (x, sig, se, ySig, ySe) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  const yKind = x.call(x87Kind, ySig, ySe);
  propagateTwo(x, [sig, se, kind], [ySig, ySe, yKind]);
  const denormal = c.let(denormalFlag(kind, yKind));
  const sign = c.let(se.xor(ySe).and(0x8000));
  const xSign = c.let(signOf(se));
  c.if(kind.eq(KIND.INFINITY), () => {
    c.if(xSign.or(yKind.eq(KIND.ZERO)), () => invalid(x));
    x.done(TOP_BIT, sign.or(MAX_EXPONENT), denormal);
  });
  c.if(yKind.eq(KIND.INFINITY), () => {
    c.if(kind.eq(KIND.ZERO), () => invalid(x));
    x.done(TOP_BIT, sign.or(MAX_EXPONENT), denormal);
  });
  c.if(kind.eq(KIND.ZERO).or(yKind.eq(KIND.ZERO)), () => x.done(0, sign, denormal));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  // From -1 down there is no logarithm, and the manual leaves the result undefined.
  c.if(xSign.and(e.geS(0)), () => x.done(sig, se, denormal.or(STATUS.PE)));
  doneProduct(x, ySig, ySe, x.callMany(x87LogarithmPlus1, xSign, e, normal), denormal);
});
