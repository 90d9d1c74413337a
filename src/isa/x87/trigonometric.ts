// Trigonometric functions: FSIN, FCOS, FSINCOS, FPTAN, FPATAN (Intel SDM Vol. 1 8.3.7, 8.3.8, 8.3.10; Vol. 2A). Angles are reduced by the 66 bits
// of pi that the manual names, exactly; what follows has an error far below half a unit in the last place, and is then rounded.

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { multiplyWide, normalise } from "../softfloat/significand.ts";
import { denormalFlag, invalid, propagateOne } from "./arithmetic.ts";
import { doneFraction, propagateTwo, scaleDown } from "./exponential.ts";
import {
  add,
  addOrSubtract,
  arctangentOf,
  CONSTANT,
  type Fraction,
  fraction,
  halve,
  inverseFactorials,
  inverseOdds,
  multiply,
  polynomial,
  reciprocal,
  subtract,
} from "./fixed.ts";
import { BIAS, exponentOf, KIND, signOf, TOP_BIT, x87Kind, x87Unpack } from "./format.ts";
import { STATUS } from "./state.ts";

const RESULT = ["i64", "i32", "i32"] as const;
const YES: Val = i32(1);
/** One unit: what a truncated series is above the value, at least. */
const UNIT: Fraction = { hi: i64(0), lo: i64(1) };
const HALF: Fraction = { hi: i64(TOP_BIT), lo: i64(0) };

/** Angles from here on are out of range: 2^63. */
export const ANGLE_LIMIT = BIAS + 63;

/** Pi in 66 bits, times 2^64 (SDM Vol. 1 8.3.8). */
const PI_66 = 0x3243f6a8885a308d3n;
/** Below 2^-2 an angle is taken as it is. */
const SMALL_ANGLE = -2;

/** (e, sig) of an angle sig / 2^63 * 2^e below 2^63 -> (quadrant, negative, e, hi, lo): what is left of it after quarters of pi / 2 to either side. */
const x87ReduceAngle = helper("x87ReduceAngle", ["i32", "i64"], ["i32", "i32", "i32", "i64", "i64"], (x, e, sig) => {
  const { c } = x;
  c.if(e.ltS(SMALL_ANGLE), () => x.done(0, 0, e.add(1), sig, 0));
  // In units of 2^-65, of which pi / 2 has PI_66. Long division by it, of which the last two bits of the quotient matter.
  const piHigh = PI_66 >> 64n;
  const piLow = BigInt.asIntN(64, PI_66);
  const hi = c.local("i64", 0);
  const lo = c.local("i64", sig);
  const quotient = c.local("i32", 0);
  const left = c.local("i32", e.sub(SMALL_ANGLE));
  c.block((done) => {
    c.loop((next) => {
      c.brIf(done, left.eqz());
      c.set(left, left.sub(1));
      c.set(hi, hi.shl(1).or(lo.shrU(63)));
      c.set(lo, lo.shl(1));
      const fits = c.let(hi.gtU(piHigh).or(hi.eq(piHigh).and(lo.geU(piLow))));
      c.set(quotient, quotient.shl(1).or(fits));
      c.if(fits, () => {
        c.set(hi, hi.sub(piHigh).sub(lo.ltU(piLow).zx()));
        c.set(lo, lo.sub(piLow));
      });
      c.br(next);
    });
  });
  const twice = { hi: hi.shl(1).or(lo.shrU(63)), lo: lo.shl(1) };
  const high = c.let(twice.hi);
  const negative = c.let(high.gtU(piHigh).or(high.eq(piHigh).and(twice.lo.gtU(piLow))));
  c.if(negative, () => {
    c.set(hi, i64(piHigh).sub(hi).sub(i64(piLow).ltU(lo).zx()));
    c.set(lo, i64(piLow).sub(lo));
    c.set(quotient, quotient.add(1));
  });
  const [exponent, normalHigh, normalLow] = x.callMany(normalise, 63, hi, lo);
  x.done(quotient.and(3), negative, exponent, normalHigh, normalLow);
});

const SINE = inverseFactorials(3, 2);
const COSINE = inverseFactorials(2, 2);
const PART = ["i32", "i64", "i64"] as const;

/** (e, hi, lo) of r = hi : lo * 2^e up to pi / 4 -> sin r in the same form. */
const x87SineSeries = helper("x87SineSeries", PART, ["i64", "i64"], (x, e, hi, lo) => {
  const r = { hi, lo };
  const small = scaleDown(x, r, e.neg());
  const z = multiply(x, small, small);
  const rest = multiply(x, r, multiply(x, z, polynomial(x, z, SINE, YES)));
  const result = subtract(x, subtract(x, r, rest), UNIT);
  x.done(result.hi, result.lo);
});

/** The same -> cos r / 2. */
const x87CosineSeries = helper("x87CosineSeries", PART, ["i64", "i64"], (x, e, hi, lo) => {
  const small = scaleDown(x, { hi, lo }, e.neg());
  const z = multiply(x, small, small);
  const rest = multiply(x, z, polynomial(x, z, COSINE, YES));
  const result = subtract(x, subtract(x, HALF, halve(x, rest)), UNIT);
  x.done(result.hi, result.lo);
});

/** (sign, quadrant, negative, e, hi, lo) of a reduced angle -> its sine; of the next quadrant, its cosine. */
const x87SineOf = helper(
  "x87SineOf",
  ["i32", "i32", "i32", "i32", "i64", "i64"],
  RESULT,
  (x, sign, quadrant, negative, e, hi, lo) => {
    const { c } = x;
    const flipped = c.let(sign.xor(quadrant.shrU(1)).and(1));
    c.if(quadrant.and(1), () => {
      const [high, low] = x.callMany(x87CosineSeries, e, hi, lo);
      doneFraction(x, flipped, YES, { hi: high, lo: low }, i64(1), i32(0));
    });
    const [high, low] = x.callMany(x87SineSeries, e, hi, lo);
    doneFraction(x, flipped.xor(negative), e, { hi: high, lo: low }, i64(1), i32(0));
  },
);

/** What every function of an angle begins with: NaNs and infinities. Gives the kind. */
function beginAngle(x: Env, sig: Val, se: Val, propagate: (kind: Val) => void): Val {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  c.if(kind.geU(KIND.QNAN), () => propagate(kind), undefined, "unlikely");
  return kind;
}

/** (sig, se, cosine): FSIN, or FCOS. The angle is below 2^63 or none. */
export const x87Sine = helper("x87Sine", ["i64", "i32", "i32"], RESULT, (x, sig, se, cosine) => {
  const { c } = x;
  const kind = beginAngle(x, sig, se, (k) => propagateOne(x, sig, k, se));
  c.if(kind.eq(KIND.INFINITY), () => invalid(x));
  c.if(kind.eq(KIND.ZERO), () => x.done(select(cosine, i64(TOP_BIT), i64(0)), select(cosine, i32(BIAS), se), 0));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  const [quadrant, negative, left, hi, lo] = x.callMany(x87ReduceAngle, e, normal);
  const sign = signOf(se).and(cosine.eqz());
  const [value, valueSe, flags] = x.callMany(x87SineOf, sign, quadrant.add(cosine), negative, left, hi, lo);
  x.done(value, valueSe, flags.or(denormalFlag(kind)));
});

/** (sig, se) -> sine, cosine, flags. */
export const x87SineCosine = helper(
  "x87SineCosine",
  ["i64", "i32"],
  ["i64", "i32", "i64", "i32", "i32"],
  (x, sig, se) => {
    const { c } = x;
    const one = c.let(exponentOf(se).eqz().and(sig.eqz()));
    const [sine, sineSe, flags] = x.callMany(x87Sine, sig, se, 0);
    const [cosine, cosineSe, cosineFlags] = x.callMany(x87Sine, sig, se, 1);
    x.done(sine, sineSe, cosine, cosineSe, select(one, i32(0), flags.or(cosineFlags.and(~STATUS.C1))));
  },
);

/** Angles below 2^-32, whose tangent needs two terms. */
const TINY_ANGLE = -32;
const [THIRD] = inverseOdds(1);

/** (sig, se): FPTAN. */
export const x87Tangent = helper("x87Tangent", ["i64", "i32"], RESULT, (x, sig, se) => {
  const { c } = x;
  const kind = beginAngle(x, sig, se, (k) => propagateOne(x, sig, k, se));
  c.if(kind.eq(KIND.INFINITY), () => invalid(x));
  c.if(kind.eq(KIND.ZERO), () => x.done(0, se, 0));
  const [e, normal] = x.callMany(x87Unpack, sig, se);
  const [quadrant, negative, left, hi, lo] = x.callMany(x87ReduceAngle, e, normal);
  const sign = c.let(signOf(se).xor(negative));
  c.if(left.ltS(TINY_ANGLE), () => {
    // r + r^3 / 3.
    const half = halve(x, { hi, lo });
    const small = scaleDown(x, { hi, lo }, left.neg());
    const rest = multiply(x, half, multiply(x, multiply(x, small, small), fraction(THIRD)));
    c.if(quadrant.and(1).eqz(), () => {
      doneFraction(x, sign, left.add(1), add(x, half, rest), i64(1), denormalFlag(kind));
    });
  });
  const [sineHigh, sineLow] = x.callMany(x87SineSeries, left, hi, lo);
  const [cosineHigh, cosineLow] = x.callMany(x87CosineSeries, left, hi, lo);
  const [sineE, sHigh, sLow] = x.callMany(normalise, left, sineHigh, sineLow);
  const [cosineE, cHigh, cLow] = x.callMany(normalise, 1, cosineHigh, cosineLow);
  // In odd quadrants -1 / tan r.
  const odd = c.let(quadrant.and(1));
  const numerator = { hi: c.let(select(odd, cHigh, sHigh)), lo: c.let(select(odd, cLow, sLow)) };
  const divisor = { hi: c.let(select(odd, sHigh, cHigh)), lo: c.let(select(odd, sLow, cLow)) };
  const difference = c.let(sineE.sub(cosineE));
  const exponent = select(odd, difference.neg(), difference).add(1);
  const quotient = multiply(x, numerator, reciprocal(x, divisor));
  doneFraction(x, sign.xor(odd), exponent, quotient, i64(1), denormalFlag(kind));
});

/** Steps of the table of arc tangents. */
const STEPS = 16;
const ARC_TERMS = inverseOdds(14);

/** (k) -> atan(k / 16). */
const x87ArcTable = helper("x87ArcTable", ["i32"], ["i64", "i64"], (x, k) => {
  const entry = (n: number): void => {
    const { hi, lo } = fraction(arctangentOf(n, STEPS));
    x.done(hi, lo);
  };
  x.c.switch(
    k,
    Array.from({ length: STEPS }, (_, n) => [[n], () => entry(n)] as const),
    () => entry(STEPS),
  );
  x.c.unreachable();
});

/** 128 bits shifted left by less than 64. */
function shiftLeft(x: Env, hi: Val, lo: Val, n: Val): Fraction {
  const { c } = x;
  const count = c.let(n.zx());
  return { hi: c.let(hi.shl(count).or(lo.shrU(1).shrU(count.xor(63)))), lo: c.let(lo.shl(count)) };
}

/** (a, b, d) of t = a / b * 2^-d up to 1 -> (k, negative, p, hi, lo): t = tan(atan(k / 16) +- atan(hi : lo * 2^p)). */
const x87ReduceArc = helper(
  "x87ReduceArc",
  ["i64", "i64", "i32"],
  ["i32", "i32", "i32", "i64", "i64"],
  (x, a, b, d) => {
    const { c } = x;
    const t = multiply(x, { hi: a, lo: i64(0) }, reciprocal(x, { hi: b, lo: i64(0) }));
    const k = c.local("i32", 0);
    c.if(d.leU(5), () => c.set(k, t.hi.shrU(d.add(58).zx()).add(1).shrU(1).wrap()));
    c.if(k.eqz(), () => x.done(0, 0, i32(1).sub(d), t.hi, t.lo));
    // (16 a - k b) / (16 b + k a), times 32 above and below.
    const [kbHigh, kbLow] = x.callMany(multiplyWide, b, k.zx());
    const [kaHigh, kaLow] = x.callMany(multiplyWide, a, k.zx());
    const a16 = shiftLeft(x, i64(0), a, i32(9).sub(d));
    const kb = shiftLeft(x, kbHigh, kbLow, i32(5));
    const b16 = shiftLeft(x, i64(0), b, i32(9));
    const ka = shiftLeft(x, kaHigh, kaLow, i32(5).sub(d));
    const signed = subtract(x, a16, kb);
    const negative = c.let(signed.hi.ltS(0));
    const numerator = addOrSubtract(x, negative, { hi: i64(0), lo: i64(0) }, signed);
    c.if(numerator.hi.or(numerator.lo).eqz(), () => x.done(k, 0, -64, 0, 0));
    const divisor = addOrSubtract(x, i32(0), b16, ka);
    const [numeratorE, nHigh, nLow] = x.callMany(normalise, 0, numerator.hi, numerator.lo);
    const [divisorE, dHigh, dLow] = x.callMany(normalise, 0, divisor.hi, divisor.lo);
    const u = multiply(x, { hi: nHigh, lo: nLow }, reciprocal(x, { hi: dHigh, lo: dLow }));
    x.done(k, negative, numeratorE.sub(divisorE).add(1), u.hi, u.lo);
  },
);

/** Multiples of pi / 4 with a sign: FPATAN of zeros and infinities. */
const x87EighthTurns = helper("x87EighthTurns", ["i32", "i32", "i32"], RESULT, (x, count, signBit, flags) => {
  const { hi, lo } = fraction(CONSTANT.PI_4);
  const eighth = halve(x, halve(x, { hi: x.c.let(hi), lo: x.c.let(lo) }));
  const n = x.c.let(count.zx());
  const [carry, low] = x.callMany(multiplyWide, eighth.lo, n);
  doneFraction(x, signBit.shrU(15), i32(2), { hi: x.c.let(eighth.hi.mul(n).add(carry)), lo: low }, i64(1), flags);
});

/** (x, y): FPATAN, the angle of the point (x, y) (SDM Vol. 2A table 3-30). */
export const x87ArcTangent = helper("x87ArcTangent", ["i64", "i32", "i64", "i32"], RESULT, (x, sig, se, ySig, ySe) => {
  const { c } = x;
  const kind = x.call(x87Kind, sig, se);
  const yKind = x.call(x87Kind, ySig, ySe);
  propagateTwo(x, [sig, se, kind], [ySig, ySe, yKind]);
  const denormal = c.let(denormalFlag(kind, yKind));
  const left = c.let(signOf(se));
  const signBit = c.let(ySe.and(0x8000));
  const turns = (count: Val): void => x.done(...x.callMany(x87EighthTurns, count, signBit, denormal));
  const infinite = c.let(kind.eq(KIND.INFINITY));
  c.if(yKind.eq(KIND.INFINITY), () => turns(select(infinite, left.mul(2).add(1), i32(2))));
  c.if(yKind.eq(KIND.ZERO).or(infinite), () => {
    c.if(left.eqz(), () => x.done(0, signBit, denormal));
    turns(i32(4));
  });
  c.if(kind.eq(KIND.ZERO), () => turns(i32(2)));
  const [ex, nx] = x.callMany(x87Unpack, sig, se);
  const [ey, ny] = x.callMany(x87Unpack, ySig, ySe);
  const steep = c.let(ey.gtS(ex).or(ey.eq(ex).and(ny.gtU(nx))));
  const distance = c.let(select(steep, ey.sub(ex), ex.sub(ey)));
  const [k, negative, p, hi, lo] = x.callMany(x87ReduceArc, select(steep, nx, ny), select(steep, ny, nx), distance);
  const u = { hi, lo };
  const small = scaleDown(x, u, p.neg());
  const z = multiply(x, small, small);
  const rest = multiply(x, u, multiply(x, z, polynomial(x, z, ARC_TERMS, YES)));
  const arc = subtract(x, u, rest);
  const sign = c.let(signBit.shrU(15));
  c.if(k.or(steep).or(left).eqz(), () => {
    const below = subtract(x, arc, UNIT);
    doneFraction(x, sign, p, below, i64(1), denormal);
  });
  // A quarter of the angle, which is up to pi.
  const [baseHigh, baseLow] = x.callMany(x87ArcTable, k);
  const part = scaleDown(x, arc, p.neg());
  const angle = addOrSubtract(x, negative, { hi: baseHigh, lo: baseLow }, part);
  const quarter = halve(x, halve(x, angle));
  const pi4 = fraction(CONSTANT.PI_4);
  const eighthTurn = fraction(CONSTANT.PI_4 >> 1n);
  const hiLocal = c.local("i64", quarter.hi);
  const loLocal = c.local("i64", quarter.lo);
  const from = (whole: Fraction): void => {
    const difference = subtract(x, { hi: c.let(whole.hi), lo: c.let(whole.lo) }, { hi: hiLocal, lo: loLocal });
    c.set(hiLocal, difference.hi);
    c.set(loLocal, difference.lo);
  };
  c.if(steep, () => from(eighthTurn));
  c.if(left, () => from(pi4));
  doneFraction(x, sign, i32(2), { hi: hiLocal, lo: loLocal }, i64(1), denormal);
});
