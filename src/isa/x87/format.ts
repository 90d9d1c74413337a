// The double extended-precision format and the way between it and the others (Intel SDM Vol. 1 4.2.2, 4.8.3, 8.2). Finite values are taken
// apart into the exponent and normalised significand of softfloat/significand.ts.

import type { Local } from "../../wasm/code.ts";
import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { ROUND, round } from "../softfloat/rounding.ts";
import { shiftRightJam } from "../softfloat/significand.ts";
import { FCW } from "../state.ts";
import { STATUS } from "./state.ts";

export const BIAS = 16383;
export const MAX_EXPONENT = 0x7fff;
export const TOP_BIT = 1n << 63n;
export const QUIET_BIT = 1n << 62n;
/** Exponent of zero for significand.ts: below that of any product or quotient. */
const ZERO_EXPONENT = -0x10000;
/** What an unmasked overflow takes from, and an unmasked underflow adds to the exponent (SDM Vol. 1 8.5.4). */
const WRAP = 24576;

export const signOf = (se: Val): Val => se.shrU(15).and(1);
export const exponentOf = (se: Val): Val => se.and(MAX_EXPONENT);
/** The rounding mode, i32 (ROUND). */
export const roundingMode = (x: Env): Val => x.get(FCW).bits(10, 2);

/** Classes of values, ordered so that what an arithmetic operation cannot take as a number comes last. */
export const KIND = { ZERO: 0, NORMAL: 1, DENORMAL: 2, INFINITY: 3, QNAN: 4, SNAN: 5, UNSUPPORTED: 6 } as const;

/** (sig, se) -> KIND. Pseudo-denormals count as denormals; pseudo-NaNs, pseudo-infinities and unnormals are not supported (SDM Vol. 1 8.2.2). */
export const x87Kind = helper("x87Kind", ["i64", "i32"], ["i32"], (x, sig, se) => {
  const { c } = x;
  const exponent = c.let(exponentOf(se));
  c.if(exponent.eqz(), () => x.done(select(sig.eqz(), i32(KIND.ZERO), KIND.DENORMAL)), undefined, "unlikely");
  c.if(sig.geS(0), () => x.done(KIND.UNSUPPORTED), undefined, "unlikely");
  c.if(exponent.ne(MAX_EXPONENT), () => x.done(KIND.NORMAL), undefined, "likely");
  c.if(sig.eq(TOP_BIT), () => x.done(KIND.INFINITY));
  x.done(select(sig.and(QUIET_BIT).eqz(), i32(KIND.SNAN), KIND.QNAN));
});

/** (sig, se) of a finite value -> (e, sig): value = sig / 2^63 * 2^e. */
export const x87Unpack = helper("x87Unpack", ["i64", "i32"], ["i32", "i64"], (x, sig, se) => {
  const { c } = x;
  c.if(sig.eqz(), () => x.done(ZERO_EXPONENT, 0));
  const exponent = c.let(exponentOf(se));
  const e = select(exponent, exponent, 1).sub(BIAS);
  const shift = c.let(sig.clz());
  x.done(e.sub(shift.wrap()), sig.shl(shift));
});

/** (sign, e, hi, lo, precision) -> (sig, se, flags), hi normalised: rounds to `precision` bits and packs. The exponent range does not depend
 *  on the precision. Tininess is detected after rounding; C1 tells that rounding was upwards (SDM Vol. 1 4.9.1.5, 8.1.3.3, 8.5.4 to 8.5.6). */
export const x87Pack = helper(
  "x87Pack",
  ["i32", "i32", "i64", "i64", "i32"],
  ["i64", "i32", "i32"],
  (x, sign, e, hi, lo, precision) => {
    const { c } = x;
    const control = c.let(x.get(FCW));
    const mode = c.let(control.bits(10, 2));
    const signBit = c.let(sign.shl(15));
    const rounded = round(c, hi, lo, precision, sign, mode);
    const exponent = c.let(e.add(rounded.carry).add(BIAS));
    const lost = (inexact: Val, up: Val): Val => inexact.mul(STATUS.PE).or(up.mul(STATUS.C1));

    c.if(
      exponent.sub(1).ltU(MAX_EXPONENT - 1),
      () => x.done(rounded.sig, exponent.or(signBit), lost(rounded.inexact, rounded.up)),
      undefined,
      "likely",
    );
    c.if(exponent.gtS(0), () => {
      const wrapped = c.let(exponent.sub(WRAP));
      const flags = c.let(lost(rounded.inexact, rounded.up).or(STATUS.OE));
      // FSCALE alone can overflow so far that the wrapped exponent does not fit: the result is then an infinity.
      c.if(control.and(STATUS.OE).eqz(), () => {
        c.if(wrapped.ltS(MAX_EXPONENT), () => x.done(rounded.sig, wrapped.or(signBit), flags));
        x.done(TOP_BIT, signBit.or(MAX_EXPONENT), flags.or(STATUS.PE | STATUS.C1));
      });
      const finite = mode.eq(ROUND.ZERO).or(mode.eq(select(sign, i32(ROUND.UP), ROUND.DOWN)));
      c.if(finite, () => {
        const largest = i64(-1).shl(i64(64).sub(precision.zx()));
        x.done(largest, signBit.or(MAX_EXPONENT - 1), STATUS.OE | STATUS.PE);
      });
      x.done(TOP_BIT, signBit.or(MAX_EXPONENT), STATUS.OE | STATUS.PE | STATUS.C1);
    });
    c.if(control.and(STATUS.UE).eqz(), () => {
      const wrapped = c.let(exponent.add(WRAP));
      const flags = c.let(lost(rounded.inexact, rounded.up).or(STATUS.UE));
      c.if(wrapped.gtS(0), () => x.done(rounded.sig, wrapped.or(signBit), flags));
      x.done(0, signBit, flags.or(STATUS.PE));
    });
    const [high, low] = x.callMany(shiftRightJam, hi, lo, i32(1 - BIAS).sub(e));
    const denormal = round(c, high, low, precision, sign, mode);
    const flags = lost(denormal.inexact, denormal.up).or(denormal.inexact.mul(STATUS.UE));
    x.done(denormal.sig, signBit.or(denormal.sig.shrU(63).wrap()), flags);
  },
);

/** Bits of significand that precision control asks for (SDM Vol. 1 8.1.5.2); the reserved encoding means 64 too. */
export function precision(x: Env): Val {
  const control = x.c.let(x.get(FCW).bits(8, 2));
  return x.c.let(select(control.and(1), i32(64), select(control, i32(53), select(control, i32(64), 24))));
}

// From other formats; the results are exact.

/** Bits of a single -> (sig, se, flags): DE for a denormal. A signalling NaN stays one. */
export const x87FromSingle = helper("x87FromSingle", ["i32"], ["i64", "i32", "i32"], (x, bits) => {
  widen(x, bits.zx(), 23, 8, bits.shrU(31));
});

export const x87FromDouble = helper("x87FromDouble", ["i64"], ["i64", "i32", "i32"], (x, bits) => {
  widen(x, bits, 52, 11, bits.shrU(63).wrap());
});

function widen(x: Env, bits: Val, fractionBits: number, exponentBits: number, sign: Val): void {
  const { c } = x;
  const largest = 2 ** exponentBits - 1;
  const bias = (largest - 1) / 2;
  const signBit = c.let(sign.shl(15));
  const field = c.let(bits.shrU(fractionBits).wrap().and(largest));
  const fraction = c.let(bits.shl(63 - fractionBits).and(TOP_BIT - 1n));
  c.if(field.eqz(), () => {
    c.if(fraction.eqz(), () => x.done(0, signBit, 0));
    const shift = c.let(fraction.clz());
    x.done(
      fraction.shl(shift),
      i32(BIAS - bias + 1)
        .sub(shift.wrap())
        .or(signBit),
      STATUS.DE,
    );
  });
  const exponent = select(field.eq(largest), i32(MAX_EXPONENT), field.add(BIAS - bias));
  x.done(fraction.or(TOP_BIT), exponent.or(signBit), 0);
}

/** A signed integer -> (sig, se). */
export const x87FromInteger = helper("x87FromInteger", ["i64"], ["i64", "i32"], (x, value) => {
  const { c } = x;
  c.if(value.eqz(), () => x.done(0, 0));
  const signBit = c.let(value.shrU(63).wrap().shl(15));
  const magnitude = c.let(select(signBit, i64(0).sub(value), value));
  const shift = c.let(magnitude.clz());
  x.done(
    magnitude.shl(shift),
    i32(BIAS + 63)
      .sub(shift.wrap())
      .or(signBit),
  );
});

// To other formats. Flags have exceptions and C1; `stored` is 0 where an unmasked exception keeps the destination as it was.

/** Whether a result in memory is written: not with an unmasked invalid operation, overflow or underflow (SDM Vol. 1 8.5). */
function written(x: Env, flags: Val): Val {
  const stops = STATUS.IE | STATUS.OE | STATUS.UE;
  return flags.and(stops).and(x.get(FCW).not()).eqz();
}

function narrow(fractionBits: number, exponentBits: number): (x: Env, ...params: Local[]) => void {
  const bits = fractionBits + exponentBits + 1;
  const largest = 2 ** exponentBits - 1;
  const bias = (largest - 1) / 2;
  const infinity = BigInt(largest) << BigInt(fractionBits);
  return (x, isFilled, sig, se) => {
    const { c } = x;
    const signBit = c.let(
      signOf(se)
        .zx()
        .shl(bits - 1),
    );
    const indefinite = (flags: number): void => {
      const pattern = (1n << BigInt(bits - 1)) | infinity | (1n << BigInt(fractionBits - 1));
      x.done(pattern, flags, written(x, i32(flags)));
    };
    c.if(isFilled.eqz(), () => indefinite(STACK_EMPTY), undefined, "unlikely");
    const kind = c.let(x.call(x87Kind, sig, se));
    c.if(
      kind.geU(KIND.INFINITY),
      () => {
        c.if(kind.eq(KIND.INFINITY), () => x.done(signBit.or(infinity), 0, 1));
        c.if(kind.eq(KIND.UNSUPPORTED), () => indefinite(STATUS.IE));
        const flags = c.let(kind.eq(KIND.SNAN).mul(STATUS.IE));
        const payload = sig.shl(1).shrU(64 - fractionBits);
        x.done(payload.or(infinity | (1n << BigInt(fractionBits - 1))).or(signBit), flags, written(x, flags));
      },
      undefined,
      "unlikely",
    );
    c.if(sig.eqz(), () => x.done(signBit, 0, 1));
    const [e, hi] = x.callMany(x87Unpack, sig, se);
    const mode = c.let(roundingMode(x));
    const sign = c.let(signOf(se));
    const lost = (inexact: Val, up: Val): Val => inexact.mul(STATUS.PE).or(up.mul(STATUS.C1));
    const rounded = round(c, hi, i64(0), fractionBits + 1, sign, mode);
    const exponent = c.let(e.add(rounded.carry).add(bias));
    const place = (value: Val): Val => value.shl(1).shrU(64 - fractionBits);
    c.if(exponent.sub(1).ltU(largest - 1), () => {
      const packed = place(rounded.sig).or(exponent.zx().shl(fractionBits)).or(signBit);
      x.done(packed, lost(rounded.inexact, rounded.up), 1);
    });
    c.if(exponent.gtS(0), () => {
      const finite = c.let(mode.eq(ROUND.ZERO).or(mode.eq(select(sign, i32(ROUND.UP), ROUND.DOWN))));
      const masked = c.let(x.get(FCW).and(STATUS.OE).ne(0));
      const flags = select(
        masked,
        finite
          .eqz()
          .mul(STATUS.C1)
          .or(STATUS.OE | STATUS.PE),
        i32(STATUS.OE),
      );
      x.done(i64(infinity).sub(finite.zx()).or(signBit), flags, masked);
    });
    c.if(x.get(FCW).and(STATUS.UE).eqz(), () => x.done(0, STATUS.UE, 0));
    const [high, low] = x.callMany(shiftRightJam, hi, 0, i32(1 - bias).sub(e));
    const denormal = round(c, high, low, fractionBits + 1, sign, mode);
    const flags = lost(denormal.inexact, denormal.up).or(denormal.inexact.mul(STATUS.UE));
    // A fraction that grew to the implied bit is the least normal number in the right form.
    x.done(denormal.sig.shrU(63 - fractionBits).or(signBit), flags, 1);
  };
}

const STACK_EMPTY = STATUS.IE | STATUS.SF;

/** (filled, sig, se) -> (bits as i64, flags, stored). */
export const x87ToSingle = helper("x87ToSingle", ["i32", "i64", "i32"], ["i64", "i32", "i32"], narrow(23, 8));
export const x87ToDouble = helper("x87ToDouble", ["i32", "i64", "i32"], ["i64", "i32", "i32"], narrow(52, 11));

/** (sign, e, sig, mode) of a finite value -> (magnitude, beyond 64 bits, flags): rounds to an integer. */
export const x87RoundInteger = helper(
  "x87RoundInteger",
  ["i32", "i32", "i64", "i32"],
  ["i64", "i32", "i32"],
  (x, sign, e, sig, mode) => {
    const { c } = x;
    c.if(e.gtS(63), () => x.done(0, 1, 0));
    const [whole, fraction] = x.callMany(shiftRightJam, sig, 0, i32(63).sub(e));
    const inexact = c.let(fraction.ne(0));
    const nearest = fraction.gtU(TOP_BIT).or(fraction.eq(TOP_BIT).and(whole.wrap()));
    const directed = inexact.and(mode.eq(ROUND.DOWN).and(sign).or(mode.eq(ROUND.UP).and(sign.eqz())));
    const up = c.let(select(mode.eqz(), nearest, directed));
    const sum = c.let(whole.add(up.zx()));
    x.done(sum, sum.eqz().and(up), inexact.mul(STATUS.PE).or(up.mul(STATUS.C1)));
  },
);

/** (filled, sig, se, bits, mode) -> (value, flags, stored): to a signed integer of 16, 32 or 64 bits, sign-extended. */
export const x87ToInteger = helper(
  "x87ToInteger",
  ["i32", "i64", "i32", "i32", "i32"],
  ["i64", "i32", "i32"],
  (x, isFilled, sig, se, bits, mode) => {
    const { c } = x;
    const least = c.let(i64(-1).shl(bits.sub(1).zx()));
    c.if(isFilled.eqz(), () => x.done(least, STACK_EMPTY, written(x, i32(STACK_EMPTY))), undefined, "unlikely");
    const invalid = (): void => x.done(least, STATUS.IE, written(x, i32(STATUS.IE)));
    c.if(x.call(x87Kind, sig, se).geU(KIND.INFINITY), invalid, undefined, "unlikely");
    const [e, normal] = x.callMany(x87Unpack, sig, se);
    const sign = c.let(signOf(se));
    const [magnitude, beyond, flags] = x.callMany(x87RoundInteger, sign, e, normal, mode);
    // Largest magnitude: 2^(bits-1), one less for positive values.
    const limit = least.neg().sub(sign.xor(1).zx());
    c.if(beyond.or(magnitude.gtU(limit)), invalid, undefined, "unlikely");
    x.done(select(sign, magnitude.neg(), magnitude), flags, 1);
  },
);
