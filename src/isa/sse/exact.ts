// Floating-point operations of SSE computed exactly, with their exceptions, for when the host's own arithmetic cannot tell: the rounding
// mode is not to nearest, a NaN, denormal number, overflow or underflow is involved, or the precision flag has still to be set
// (Intel SDM Vol. 1 4.8.3.5, 4.9, 10.2.3, 11.5.2). Helpers take bits as i64 and give (bits, flags); no state is changed.

import type { Code, Local } from "../../wasm/code.ts";
import { type Operand, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import {
  BINARY32,
  BINARY64,
  FLOAT,
  type Format,
  isDenormal,
  isNan,
  isSignalling,
  magnitude,
  roundPack,
  signOf,
  unpack,
} from "../softfloat/format.ts";
import { ROUND } from "../softfloat/rounding.ts";
import {
  addMagnitudes,
  divideMagnitudes,
  multiplyMagnitudes,
  rootMagnitude,
  subtractMagnitudes,
} from "../softfloat/significand.ts";

/** An operand after NaNs are dealt with and denormals-are-zeros is applied. */
interface Number {
  readonly mag: Val;
  /** i32. */
  readonly sign: Val;
}

function isInfinite(f: Format, a: Number): Val {
  return a.mag.eq(f.infinity);
}

/** Clears a denormal magnitude under DAZ, else adds DE to the flags. */
export function denormalOperand(c: Code, f: Format, mag: Local, mxcsr: Val, flags: Local): void {
  c.if(
    isDenormal(f, mag),
    () =>
      c.if(
        mxcsr.and(FLOAT.DAZ),
        () => c.set(mag, 0),
        () => c.set(flags, flags.or(FLOAT.DE)),
      ),
    undefined,
    "unlikely",
  );
}

/** The result where an operand is a NaN: the first one that is, made quiet; IE where any signals (SDM Vol. 1 table 4-7). */
function propagate(x: Env, f: Format, a: Val, b: Val): void {
  const { c } = x;
  const magA = c.let(magnitude(f, a));
  const magB = c.let(magnitude(f, b));
  c.if(
    isNan(f, magA).or(isNan(f, magB)),
    () => {
      const first = select(isNan(f, magA), a, b);
      x.done(first.or(f.quiet), isSignalling(f, magA).or(isSignalling(f, magB)));
    },
    undefined,
    "unlikely",
  );
}

function zeroOrInfinity(f: Format, sign: Val, infinite: boolean): Val {
  const signBits = sign.zx().shl(f.bits - 1);
  return infinite ? signBits.or(f.infinity) : signBits;
}

type Finish = (x: Env, f: Format, a: Number, b: Number, mxcsr: Val, flags: Local) => void;

function pack(x: Env, f: Format, sign: Val, [e, hi, lo]: readonly Operand[], mxcsr: Val, flags: Val): void {
  const [bits, raised] = x.callMany(roundPack(f), sign, e, hi, lo, mxcsr);
  x.done(bits, raised.or(flags));
}

function binary(name: string, f: Format, finish: Finish): Helper {
  return helper(`${name}${f.bits}`, ["i64", "i64", "i32"], ["i64", "i32"], (x, a, b, mxcsr) => {
    const { c } = x;
    propagate(x, f, a, b);
    const flags = c.local("i32", 0);
    const magA = c.local("i64", magnitude(f, a));
    const magB = c.local("i64", magnitude(f, b));
    denormalOperand(c, f, magA, mxcsr, flags);
    denormalOperand(c, f, magB, mxcsr, flags);
    const first = { mag: c.let(magA), sign: c.let(signOf(f, a)) };
    const second = { mag: c.let(magB), sign: c.let(signOf(f, b)) };
    finish(x, f, first, second, mxcsr, flags);
  });
}

function sum(subtract: 0 | 1): Finish {
  return (x, f, a, b, mxcsr, flags) => {
    const { c } = x;
    const signB = c.let(b.sign.xor(subtract));
    c.if(isInfinite(f, a).or(isInfinite(f, b)), () => {
      c.if(a.mag.eq(b.mag).and(a.sign.ne(signB)), () => x.done(f.indefinite, FLOAT.IE));
      x.done(zeroOrInfinity(f, select(isInfinite(f, a), a.sign, signB), true), flags);
    });
    const ua = unpack(c, f, a.mag);
    const ub = unpack(c, f, b.mag);
    c.if(a.sign.eq(signB), () => {
      // Two zeros of one sign; the sum of others is not zero.
      c.if(a.mag.or(b.mag).eqz(), () => x.done(zeroOrInfinity(f, a.sign, false), flags));
      pack(x, f, a.sign, x.callMany(addMagnitudes, ua.e, ua.sig, ub.e, ub.sig), mxcsr, flags);
    });
    const [swapped, ...difference] = x.callMany(subtractMagnitudes, ua.e, ua.sig, ub.e, ub.sig);
    c.if(difference[1].eqz(), () =>
      x.done(zeroOrInfinity(f, mxcsr.bits(FLOAT.RC_SHIFT, 2).eq(ROUND.DOWN), false), flags),
    );
    pack(x, f, a.sign.xor(swapped), difference, mxcsr, flags);
  };
}

const product: Finish = (x, f, a, b, mxcsr, flags) => {
  const { c } = x;
  const sign = c.let(a.sign.xor(b.sign));
  const zero = c.let(a.mag.eqz().or(b.mag.eqz()));
  c.if(isInfinite(f, a).or(isInfinite(f, b)), () => {
    c.if(zero, () => x.done(f.indefinite, FLOAT.IE));
    x.done(zeroOrInfinity(f, sign, true), flags);
  });
  c.if(zero, () => x.done(zeroOrInfinity(f, sign, false), flags));
  const ua = unpack(c, f, a.mag);
  const ub = unpack(c, f, b.mag);
  pack(x, f, sign, x.callMany(multiplyMagnitudes, ua.e, ua.sig, ub.e, ub.sig), mxcsr, flags);
};

const quotient: Finish = (x, f, a, b, mxcsr, flags) => {
  const { c } = x;
  const sign = c.let(a.sign.xor(b.sign));
  c.if(isInfinite(f, a), () => {
    c.if(isInfinite(f, b), () => x.done(f.indefinite, FLOAT.IE));
    x.done(zeroOrInfinity(f, sign, true), flags);
  });
  c.if(isInfinite(f, b), () => x.done(zeroOrInfinity(f, sign, false), flags));
  c.if(b.mag.eqz(), () => {
    c.if(a.mag.eqz(), () => x.done(f.indefinite, FLOAT.IE));
    x.done(zeroOrInfinity(f, sign, true), FLOAT.ZE);
  });
  c.if(a.mag.eqz(), () => x.done(zeroOrInfinity(f, sign, false), flags));
  const ua = unpack(c, f, a.mag);
  const ub = unpack(c, f, b.mag);
  pack(x, f, sign, x.callMany(divideMagnitudes, ua.e, ua.sig, ub.e, ub.sig), mxcsr, flags);
};

/** Square root of the second operand (the source). */
function root(f: Format): Helper {
  return helper(`root${f.bits}`, ["i64", "i32"], ["i64", "i32"], (x, b, mxcsr) => {
    const { c } = x;
    propagate(x, f, b, b);
    const flags = c.local("i32", 0);
    const magB = c.local("i64", magnitude(f, b));
    denormalOperand(c, f, magB, mxcsr, flags);
    const sign = c.let(signOf(f, b));
    c.if(magB.eqz(), () => x.done(zeroOrInfinity(f, sign, false), flags));
    c.if(sign, () => x.done(f.indefinite, FLOAT.IE));
    c.if(magB.eq(f.infinity), () => x.done(f.infinity, flags));
    const { e, sig } = unpack(c, f, c.let(magB));
    pack(x, f, sign, x.callMany(rootMagnitude, e, sig), mxcsr, flags);
  });
}

/** Flags of a comparison, and what denormals-are-zeros makes of the operands: (a, b, flags). `quietToo`: QNaNs raise IE as well. */
function comparison(f: Format): Helper {
  return helper(
    `comparison${f.bits}`,
    ["i64", "i64", "i32", "i32"],
    ["i64", "i64", "i32"],
    (x, a, b, mxcsr, quietToo) => {
      const { c } = x;
      const magA = c.local("i64", magnitude(f, a));
      const magB = c.local("i64", magnitude(f, b));
      const signalling = c.let(isSignalling(f, magA).or(isSignalling(f, magB)));
      const nan = c.let(isNan(f, magA).or(isNan(f, magB)));
      const flags = c.local("i32", 0);
      denormalOperand(c, f, magA, mxcsr, flags);
      denormalOperand(c, f, magB, mxcsr, flags);
      // A NaN comes before a denormal operand, but does not keep the other operand from being taken as zero.
      c.if(nan, () => c.set(flags, signalling.or(quietToo)));
      x.done(a.and(f.sign).or(magA), b.and(f.sign).or(magB), flags);
    },
  );
}

export type BinaryOperation = "add" | "sub" | "mul" | "div";

function family(f: Format) {
  return {
    add: binary("add", f, sum(0)),
    sub: binary("sub", f, sum(1)),
    mul: binary("mul", f, product),
    div: binary("div", f, quotient),
    sqrt: root(f),
    comparison: comparison(f),
  } as const;
}

const EXACT = { 32: family(BINARY32), 64: family(BINARY64) } as const;

export function exact(f: Format): ReturnType<typeof family> {
  return EXACT[f.bits];
}
