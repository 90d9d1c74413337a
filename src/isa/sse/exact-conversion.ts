// Conversions of SSE computed exactly, with their exceptions (Intel SDM Vol. 1 4.8.3.5, 4.9.1, 11.5.2; Appendix E.4.2.2). Bits are i64.

import { i64, select } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
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
import { shiftRightJam } from "../softfloat/significand.ts";
import { denormalOperand } from "./exact.ts";

/** A signed integer (i64) to a number: (value, mxcsr) to (bits, flags). */
function fromInteger(f: Format): Helper {
  return helper(`integerToFloat${f.bits}`, ["i64", "i32"], ["i64", "i32"], (x, value, mxcsr) => {
    const { c } = x;
    c.if(value.eqz(), () => x.done(0, 0));
    const sign = c.let(value.shrU(63).wrap());
    const absolute = c.let(select(sign, value.neg(), value));
    const zeros = c.let(absolute.clz());
    const e = zeros.wrap().neg().add(63);
    const [bits, flags] = x.callMany(roundPack(f), sign, e, absolute.shl(zeros), 0, mxcsr);
    x.done(bits, flags);
  });
}

/** To a signed integer: (bits, width, mode, mxcsr) to (value, flags). NaNs and values out of range give the integer indefinite. */
function toInteger(f: Format): Helper {
  return helper(
    `float${f.bits}ToInteger`,
    ["i64", "i32", "i32", "i32"],
    ["i64", "i32"],
    (x, bits, width, mode, mxcsr) => {
      const { c } = x;
      const least = c.let(i64(1).shl(width.sub(1).zx()));
      const mag = c.local("i64", magnitude(f, bits));
      c.if(mxcsr.and(FLOAT.DAZ).ne(0).and(isDenormal(f, mag)), () => c.set(mag, 0));
      c.if(mag.eqz(), () => x.done(0, 0));
      const invalid = (): void => x.done(least.neg(), FLOAT.IE);
      c.if(isNan(f, mag), invalid);
      const { e, sig } = unpack(c, f, c.let(mag));
      c.if(e.gtS(63), invalid);
      const [whole, fraction] = x.callMany(shiftRightJam, sig, 0, e.neg().add(63));
      const sign = c.let(signOf(f, bits));
      const half = 1n << 63n;
      const nearest = fraction.gtU(half).or(fraction.eq(half).and(whole.wrap().and(1)));
      const directed = fraction.ne(0).and(mode.eq(ROUND.DOWN).and(sign).or(mode.eq(ROUND.UP).and(sign.eqz())));
      const rounded = c.let(whole.add(select(mode, directed, nearest).zx()));
      c.if(rounded.gtU(least.sub(1).add(sign.zx())), invalid);
      x.done(select(sign, rounded.neg(), rounded), fraction.ne(0).shl(5));
    },
  );
}

/** One format to the other: (bits, mxcsr) to (bits, flags). NaNs keep the upper bits of their payload and become quiet. */
function resize(name: string, from: Format, to: Format): Helper {
  return helper(name, ["i64", "i32"], ["i64", "i32"], (x, bits, mxcsr) => {
    const { c } = x;
    const mag = c.local("i64", magnitude(from, bits));
    const sign = c.let(signOf(from, bits));
    const signBits = c.let(sign.zx().shl(to.bits - 1));
    c.if(isNan(from, mag), () => {
      const move = to.precision - from.precision;
      const payload = mag.and(from.leastNormal - 1n);
      const moved = move > 0 ? payload.shl(move) : payload.shrU(-move);
      x.done(moved.or(signBits).or(to.infinity | to.quiet), isSignalling(from, mag));
    });
    c.if(mag.eq(from.infinity), () => x.done(signBits.or(to.infinity), 0));
    const flags = c.local("i32", 0);
    denormalOperand(c, from, mag, mxcsr, flags);
    c.if(mag.eqz(), () => x.done(signBits, flags));
    const { e, sig } = unpack(c, from, c.let(mag));
    const [result, raised] = x.callMany(roundPack(to), sign, e, sig, 0, mxcsr);
    x.done(result, raised.or(flags));
  });
}

export const CONVERT = {
  fromInteger: { 32: fromInteger(BINARY32), 64: fromInteger(BINARY64) },
  toInteger: { 32: toInteger(BINARY32), 64: toInteger(BINARY64) },
  widen: resize("widenFloat", BINARY32, BINARY64),
  narrow: resize("narrowFloat", BINARY64, BINARY32),
} as const;
