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

function usualControl(x: Env): Val {
  return x.get(FCW).and(CONTROL).eq(USUAL_CONTROL);
}

function isNormalExponent(e: Val): Val {
  return e.sub(1).ltU(MAX_EXPONENT - 1);
}

/** Rounds sig : rest to nearest and gives the result, or does `otherwise` where the exponent (biased) is out of range. `sign` is in bit 15. */
function finish(x: Env, sign: Val, exponent: Val, sig: Val, rest: Val, otherwise: () => void): void {
  const { c } = x;
  // Above half, or half and odd.
  const up = c.let(rest.ltS(0).and(rest.shl(1).or(sig.and(1)).ne(0)));
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
  c.if(isNormalExponent(e).eqz(), otherwise, undefined, "unlikely");
  const flags = rest
    .ne(0)
    .mul(STATUS.PE << FLAGS_SHIFT)
    .or(up.mul(STATUS.C1 << FLAGS_SHIFT));
  x.done(rounded, e.or(sign).or(flags));
}

type Usual = (x: Env, aSig: Val, ea: Val, bSig: Val, eb: Val, sign: Val, otherwise: () => void) => void;

/** An operation on two values; `sign` is that of the second operand as the usual course takes it, and of the product otherwise. */
function quick(name: string, operation: number, usual: Usual): Helper {
  return helper(name, BINARY, PACKED, (x, aSig, aSe, bSig, bSe) => {
    const { c } = x;
    const otherwise = (): void => {
      const [sig, se, flags] = x.callMany(x87Operate, operation, aSig, aSe, bSig, bSe, 0);
      donePacked(x, sig, se, flags);
    };
    const ea = c.let(exponentOf(aSe));
    const eb = c.let(exponentOf(bSe));
    const normal = aSig.and(bSig).ltS(0).and(isNormalExponent(ea)).and(isNormalExponent(eb)).and(usualControl(x));
    c.if(normal.eqz(), otherwise, undefined, "unlikely");
    usual(x, aSig, ea, bSig, eb, c.let(aSe.xor(bSe).and(0x8000)), otherwise);
  });
}

/** A sum; `flip` is 0x8000 for a difference. */
function sum(name: string, operation: number, flip: number): Helper {
  return helper(name, BINARY, PACKED, (x, aSig, aSe, bSig, bSe) => {
    const { c } = x;
    const otherwise = (): void => {
      const [sig, se, flags] = x.callMany(x87Operate, operation, aSig, aSe, bSig, bSe, 0);
      donePacked(x, sig, se, flags);
    };
    const ea = c.let(exponentOf(aSe));
    const eb = c.let(exponentOf(bSe));
    const normal = aSig.and(bSig).ltS(0).and(isNormalExponent(ea)).and(isNormalExponent(eb)).and(usualControl(x));
    c.if(normal.eqz(), otherwise, undefined, "unlikely");
    const swap = c.let(ea.ltU(eb));
    const large = c.let(select(swap, bSig, aSig));
    const small = c.let(select(swap, aSig, bSig));
    const e = c.let(select(swap, eb, ea));
    const distance = c.let(select(swap, eb.sub(ea), ea.sub(eb)));
    const bSign = bSe.xor(flip);
    const sign = c.let(select(swap, bSign, aSe).and(0x8000));
    const different = c.let(aSe.xor(bSign).and(0x8000));
    const shifted = c.local("i64", small.shrU(distance.zx()));
    const rest = c.local("i64", small.shl(1).shl(distance.xor(63).zx()));
    c.if(
      distance.gtU(63),
      () => {
        c.set(shifted, 0);
        // Bits below those of the rest are gathered in its last one.
        const lost = small.shl(1).shl(distance.not().zx()).ne(0).zx();
        c.set(rest, select(distance.ltU(128), small.shrU(distance.zx()).or(lost), i64(1)));
      },
      undefined,
      "unlikely",
    );
    c.if(different, () => {
      // Where the exponents are equal, nothing is rounded away and the second may be the larger.
      const negative = c.let(large.ltU(shifted));
      const difference = c.let(select(negative, shifted.sub(large), large.sub(shifted).sub(rest.ne(0).zx())));
      c.if(
        difference.eqz(),
        () => {
          c.if(rest.ne(0), otherwise);
          x.done(0, 0);
        },
        undefined,
        "unlikely",
      );
      const low = c.let(rest.neg());
      const count = c.let(difference.clz());
      const sig = c.let(difference.shl(count).or(low.shrU(1).shrU(count.xor(63))));
      finish(x, sign.xor(negative.shl(15)), e.sub(count.wrap()), sig, c.let(low.shl(count)), otherwise);
    });
    const total = c.let(large.add(shifted));
    const carry = c.let(total.ltU(large).zx());
    const sig = c.let(total.shrU(carry).or(carry.shl(63)));
    const below = c.let(rest.shrU(carry).or(rest.and(carry)).or(total.and(carry).shl(63)));
    finish(x, sign, e.add(carry.wrap()), sig, below, otherwise);
  });
}

export const x87QuickAdd = sum("x87QuickAdd", OPERATION.ADD, 0);
export const x87QuickSubtract = sum("x87QuickSubtract", OPERATION.SUBTRACT, 0x8000);

export const x87QuickMultiply = quick("x87QuickMultiply", OPERATION.MULTIPLY, (x, a, ea, b, eb, sign, otherwise) => {
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
  finish(x, sign, e, sig, c.let(lo.shl(shift)), otherwise);
});

/** One 32-bit digit of high : digit / divisor and the remainder; high < divisor (Knuth, vol. 2, 4.3.1 D: the estimate is at most two too large). */
function quotientDigit(c: Code, high: Val, digit: Val, d1: Val, d0: Val, divisor: Val): { quotient: Val; rest: Val } {
  const estimate = c.let(high.divU(d1));
  const partial = c.let(high.sub(estimate.mul(d1)).shl(32).or(digit));
  const product = c.let(estimate.mul(d0));
  const over = c.let(product.gtU(partial));
  const first = c.let(partial.sub(product));
  const second = c.let(select(over, first.add(divisor), first));
  const twice = c.let(over.and(second.geU(divisor)));
  return {
    quotient: c.let(estimate.sub(over.zx()).sub(twice.zx())),
    rest: c.let(select(twice, second.add(divisor), second)),
  };
}

export const x87QuickDivide = quick("x87QuickDivide", OPERATION.DIVIDE, (x, a, ea, b, eb, sign, otherwise) => {
  const { c } = x;
  const less = c.let(a.ltU(b).zx());
  const shift = c.let(less.xor(1));
  const d1 = c.let(b.shrU(32));
  const d0 = c.let(b.and(LOW_32));
  const high = c.let(a.shrU(shift));
  const low = c.let(a.and(shift).shl(31));
  const first = quotientDigit(c, high, low, d1, d0, b);
  const second = quotientDigit(c, first.rest, i64(0), d1, d0, b);
  const rest = c.let(second.rest);
  // The next bit and whether more follow. A quotient of two 64-bit significands never lies halfway.
  const half = rest.geU(b.sub(rest)).zx().shl(63);
  const below = c.let(half.or(rest.ne(0).zx()));
  const e = ea.sub(eb).add(BIAS).sub(less.wrap());
  finish(x, sign, e, c.let(first.quotient.shl(32).or(second.quotient)), below, otherwise);
});

/** The root of the upper half from the host, the lower half by one division (P. Zimmermann, "Karatsuba Square Root", INRIA RR-3805). */
export const x87QuickRoot = helper("x87QuickRoot", PACKED, PACKED, (x, sig, se) => {
  const { c } = x;
  const e = c.let(se);
  const otherwise = (): void => {
    const [root, rootSe, flags] = x.callMany(x87SquareRoot, sig, se);
    donePacked(x, root, rootSe, flags);
  };
  // A negative number's sign puts the exponent out of range.
  c.if(sig.ltS(0).and(isNormalExponent(e)).and(usualControl(x)).eqz(), otherwise, undefined, "unlikely");
  // The radicand hi : lo has an even exponent and is in [2^126, 2^128).
  const even = c.let(e.and(1).zx());
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
  const above = fixedHigh.ne(0).or(fixedLow.gtU(exact)).zx().shl(63);
  const below = c.let(above.or(fixedHigh.or(fixedLow).ne(0).zx()));
  finish(x, i32(0), e.add(BIAS).shrU(1), exact, below, otherwise);
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
