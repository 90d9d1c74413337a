// Arithmetic in the usual case, written without detours: normal operands, the control word as it is after FNINIT (rounding to nearest, 64 bits
// of precision, PE masked). Everything else goes to the general functions (Intel SDM Vol. 1 4.8.4, 8.1.5, 8.3.4).
//
// All give the result's significand, and its sign and exponent in the low half of an i32 with flags for the status word in the upper half;
// REFUSED instead where an exception is unmasked. Two results fit in registers.

import type { Code } from "../../wasm/code.ts";
import { i32, i64, op, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Env, FloatStack } from "../semantics.ts";
import { FCW } from "../state.ts";
import { OPERATION, x87Operate, x87RoundToIntegral, x87Scale, x87SquareRoot } from "./arithmetic.ts";
import { BIAS, exponentOf, MAX_EXPONENT, TOP_BIT } from "./format.ts";
import { EXCEPTIONS, STATUS, withDenormal } from "./state.ts";

export const FLAGS_SHIFT = 16;
export const REFUSED = -1;
/** RC, PC and PM of the control word, and what they are here. */
const CONTROL = 0xf20;
const USUAL_CONTROL = 0x320;
const LOW_32 = 0xffff_ffffn;

const BINARY = ["i64", "i32", "i64", "i32"] as const;
const PACKED = ["i64", "i32"] as const;

/** Gives a general function's result, unless it raises what is unmasked. */
export function donePacked(x: Env, sig: Val, se: Val, flags: Val): void {
  const raised = withDenormal(x, flags);
  const unmasked = raised.and(x.get(FCW).not()).and(EXCEPTIONS);
  x.done(sig, select(unmasked, i32(REFUSED), se.or(raised.shl(FLAGS_SHIFT))));
}

/** Goes the general way where the condition is not zero. Conditions are told one by one: each is then a comparison and a branch. */
type Unless = (condition: Val) => void;

/** The body takes the usual way and ends in a result; where it goes the general way, `otherwise` gives it. */
function usually(x: Env, body: (unless: Unless) => void, otherwise: () => void): void {
  const { c } = x;
  c.block((general) => {
    const unless = (condition: Val): void => c.brIf(general, condition, "unlikely");
    unless(x.get(FCW).and(CONTROL).ne(USUAL_CONTROL));
    body(unless);
  });
  otherwise();
}

function isNoNormalExponent(e: Val): Val {
  return e.sub(1).geU(MAX_EXPONENT - 1);
}

/** Gives sig, or sig + 1 where `up` (i32), with a biased exponent that must be in range. `sign` is in bit 15. */
function give(x: Env, unless: Unless, sign: Val, exponent: Val, sig: Val, up: Val, inexact: Val): void {
  const { c } = x;
  const rounded = c.local("i64", sig.add(up.zx()));
  const e = c.local("i32", exponent);
  c.if(
    rounded.eqz(),
    () => {
      c.set(rounded, TOP_BIT);
      c.set(e, e.add(1));
    },
    undefined,
    "unlikely",
  );
  unless(isNoNormalExponent(e));
  const flags = inexact.mul(STATUS.PE << FLAGS_SHIFT).or(up.mul(STATUS.C1 << FLAGS_SHIFT));
  x.done(rounded, e.or(sign).or(flags));
}

/** Rounds sig : rest to nearest: up above half, and at half where odd. */
function giveNearest(x: Env, unless: Unless, sign: Val, exponent: Val, sig: Val, rest: Val): void {
  const up = x.c.let(rest.gtU(i64(TOP_BIT).sub(sig.and(1))));
  give(x, unless, sign, exponent, sig, up, rest.ne(0));
}

type Usual = (x: Env, unless: Unless, a: Val, aSe: Val, ea: Val, b: Val, bSe: Val, eb: Val) => void;

/** An operation on two values. */
function quick(name: string, operation: number, usual: Usual): Helper {
  return helper(name, BINARY, PACKED, (x, aSig, aSe, bSig, bSe) => {
    const { c } = x;
    usually(
      x,
      (unless) => {
        unless(aSig.and(bSig).geS(0));
        const ea = c.let(exponentOf(aSe));
        unless(isNoNormalExponent(ea));
        const eb = c.let(exponentOf(bSe));
        unless(isNoNormalExponent(eb));
        usual(x, unless, aSig, aSe, ea, bSig, bSe, eb);
      },
      () => {
        const [sig, se, flags] = x.callMany(x87Operate, operation, aSig, aSe, bSig, bSe, 0);
        donePacked(x, sig, se, flags);
      },
    );
  });
}

/** A sum; `flip` is 0x8000 for a difference. */
function sum(flip: number): Usual {
  return (x, unless, aSig, aSe, ea, bSig, bSe, eb) => {
    const { c } = x;
    const swap = ea.ltU(eb);
    const large = c.let(select(swap, bSig, aSig));
    const small = c.let(select(swap, aSig, bSig));
    const e = c.let(select(swap, eb, ea));
    const distance = c.let(e.add(e).sub(ea).sub(eb));
    const bSign = bSe.xor(flip);
    const sign = c.let(select(swap, bSign, aSe).and(0x8000));
    const shifted = c.local("i64", small.shrU(distance.zx()));
    const rest = c.local("i64", small.shl(1).shl(distance.not().zx()));
    c.if(
      distance.gtU(63),
      () => {
        // Bits below those of the rest are gathered in its last one.
        const lost = small.shl(1).shl(distance.not().zx()).ne(0).zx();
        c.set(rest, select(distance.ltU(128), small.shrU(distance.zx()).or(lost), i64(1)));
        c.set(shifted, 0);
      },
      undefined,
      "unlikely",
    );
    c.if(aSe.xor(bSign).and(0x8000), () => {
      // Where the exponents are equal, nothing is rounded away and the second may be the larger.
      const negative = c.let(large.ltU(shifted));
      const difference = c.let(select(large.ltU(shifted), shifted.sub(large), large.sub(shifted).sub(rest.ne(0).zx())));
      c.if(
        difference.eqz(),
        () => {
          unless(rest.ne(0));
          x.done(0, 0);
        },
        undefined,
        "unlikely",
      );
      const low = c.let(rest.neg());
      const count = c.let(difference.clz());
      const sig = c.let(difference.shl(count).or(low.shrU(1).shrU(count.not())));
      giveNearest(x, unless, sign.xor(negative.shl(15)), e.sub(count.wrap()), sig, c.let(low.shl(count)));
    });
    const total = c.let(large.add(shifted));
    const carry = c.let(total.ltU(large).zx());
    const sig = c.let(total.shrU(carry).or(carry.shl(63)));
    const below = c.let(rest.shrU(carry).or(rest.and(carry)).or(total.and(carry).shl(63)));
    giveNearest(x, unless, sign, e.add(carry.wrap()), sig, below);
  };
}

export const x87QuickAdd = quick("x87QuickAdd", OPERATION.ADD, sum(0));
export const x87QuickSubtract = quick("x87QuickSubtract", OPERATION.SUBTRACT, sum(0x8000));

export const x87QuickMultiply = quick("x87QuickMultiply", OPERATION.MULTIPLY, (x, unless, a, aSe, ea, b, bSe, eb) => {
  const { c } = x;
  const a0 = c.let(a.and(LOW_32));
  const a1 = c.let(a.shrU(32));
  const b0 = c.let(b.and(LOW_32));
  const b1 = c.let(b.shrU(32));
  const p00 = c.let(a0.mul(b0));
  const p10 = c.let(a1.mul(b0).add(p00.shrU(32)));
  const p01 = c.let(a0.mul(b1).add(p10.and(LOW_32)));
  const hi = c.let(a1.mul(b1).add(p10.shrU(32)).add(p01.shrU(32)));
  const lo = c.let(a.mul(b));
  const top = c.let(hi.shrU(63));
  const shift = c.let(top.xor(1));
  const sig = c.let(hi.shl(shift).or(lo.shrU(63).and(shift)));
  const e = ea.add(eb).sub(BIAS).add(top.wrap());
  giveNearest(x, unless, aSe.xor(bSe).and(0x8000), e, sig, c.let(lo.shl(shift)));
});

/** One 32-bit digit of high : digit / divisor and the remainder; high < divisor (Knuth, vol. 2, 4.3.1 D: the estimate is at most two too large).
 *  Comparisons are told where they are used, and all remainders that may be right are computed at once: it is the way from division to division
 *  that takes the time. */
function quotientDigit(c: Code, high: Val, digit: Val, d1: Val, d0: Val, divisor: Val): { quotient: Val; rest: Val } {
  const estimate = c.let(high.divU(d1));
  const whole = c.let(high.shl(32).or(digit));
  const none = c.let(whole.sub(estimate.mul(divisor)));
  const one = c.let(none.add(divisor));
  const two = c.let(one.add(divisor));
  const partial = c.let(high.sub(estimate.mul(d1)).shl(32).or(digit));
  const product = c.let(estimate.mul(d0));
  // One more divisor does not bring the remainder above zero where it does not carry.
  const rest = c.let(select(product.gtU(partial), select(one.geU(divisor), two, one), none));
  const once = c.let(estimate.sub(1));
  const twice = c.let(estimate.sub(2));
  const quotient = c.let(select(product.gtU(partial), select(one.geU(divisor), twice, once), estimate));
  return { quotient, rest };
}

export const x87QuickDivide = quick("x87QuickDivide", OPERATION.DIVIDE, (x, unless, a, aSe, ea, b, bSe, eb) => {
  const { c } = x;
  const less = c.let(a.ltU(b).zx());
  const shift = c.let(less.xor(1));
  const d1 = c.let(b.shrU(32));
  const d0 = c.let(b.and(LOW_32));
  const high = c.let(a.shrU(shift));
  const low = c.let(a.and(shift).shl(31));
  const first = quotientDigit(c, high, low, d1, d0, b);
  const second = quotientDigit(c, first.rest, i64(0), d1, d0, b);
  const { rest } = second;
  // A quotient of two 64-bit significands never lies halfway between two others.
  const up = c.let(rest.gtU(b.sub(rest)));
  const e = ea.sub(eb).add(BIAS).sub(less.wrap());
  const quotient = c.let(first.quotient.shl(32).add(second.quotient));
  give(x, unless, aSe.xor(bSe).and(0x8000), e, quotient, up, rest.ne(0));
});

/** The root of the upper half from the host, the lower half by one division (P. Zimmermann, "Karatsuba Square Root", INRIA RR-3805). */
export const x87QuickRoot = helper("x87QuickRoot", PACKED, PACKED, (x, sig, se) => {
  const { c } = x;
  usually(
    x,
    (unless) => {
      unless(sig.geS(0));
      // A negative number's sign puts the exponent out of range.
      unless(isNoNormalExponent(se));
      // The radicand hi : lo has an even exponent and is in [2^126, 2^128).
      const even = c.let(se.and(1).zx());
      const hi = c.let(sig.shrU(even));
      const lo = c.let(sig.and(even).shl(63));
      const estimate = op("f64.min", op("f64.sqrt", op("f64.convert_i64_u", hi)), 2 ** 32 - 1);
      const guess = c.let(op("i64.trunc_f64_u", estimate));
      const upper = c.let(guess.sub(guess.mul(guess).gtU(hi).zx()));
      const over = c.let(hi.sub(upper.mul(upper)));
      const dividend = c.let(over.shl(31).or(lo.shrU(33)));
      const digit = c.let(dividend.divU(upper));
      const left = c.let(dividend.sub(digit.mul(upper)).shl(1).or(lo.shrU(32).and(1)));
      const root = c.let(upper.shl(32).add(digit));
      // What remains, left * 2^32 + low 32 bits of lo - digit^2, in 128 bits; below zero where the root is one too large.
      const square = c.let(digit.mul(digit));
      const remainder = c.let(left.shl(32));
      const remainderLow = c.let(remainder.sub(square));
      const remainderHigh = c.let(left.shrU(32).sub(digit.shrU(32)).sub(remainder.ltU(square).zx()));
      const large = c.let(remainderHigh.ltS(0));
      const exact = c.let(root.sub(large.zx()));
      const correction = c.let(exact.shl(1).or(1));
      const fixedLow = c.let(select(large, remainderLow.add(correction), remainderLow));
      const fixedHigh = c.let(
        select(large, remainderHigh.add(exact.shrU(63)).add(fixedLow.ltU(correction).zx()), remainderHigh),
      );
      const up = c.let(fixedHigh.ne(0).or(fixedLow.gtU(exact)));
      give(x, unless, i32(0), se.add(BIAS).shrU(1), exact, up, fixedHigh.or(fixedLow).ne(0));
    },
    () => {
      const [root, rootSe, flags] = x.callMany(x87SquareRoot, sig, se);
      donePacked(x, root, rootSe, flags);
    },
  );
});

/** An operation on one or two values by its general function. */
export function packed(name: string, general: Helper): Helper {
  return helper(name, general.params, PACKED, (x, ...operands) => {
    const [sig, se, flags] = x.callMany(general, ...operands);
    donePacked(x, sig, se, flags);
  });
}

export const x87PackedIntegral = packed("x87PackedIntegral", x87RoundToIntegral);
export const x87PackedScale = packed("x87PackedScale", x87Scale);

/** Calls one of these in an instruction: (significand, sign and exponent, flags), or the other course. */
export function quickly(
  x: Env,
  stack: FloatStack,
  target: Helper,
  ...operands: Val[]
): { readonly sig: Val; readonly se: Val; readonly flags: Val } {
  const [sig, result] = x.callMany(target, ...operands);
  stack.unless(result.ltS(0));
  return { sig, se: x.c.let(result.and(0xffff)), flags: result.shrU(FLAGS_SHIFT) };
}
