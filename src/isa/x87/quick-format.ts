// Conversions and comparisons in the usual case: see quick.ts. What the general functions of format.ts and compare.ts do is done here with fewer
// steps where the operands are normal numbers (Intel SDM Vol. 1 4.8.3, 4.8.4, 8.3.3, 8.3.6).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Env, FloatStack, Sem } from "../semantics.ts";
import { ROUND } from "../softfloat/rounding.ts";
import { FCW } from "../state.ts";
import { RELATION, x87Compare } from "./compare.ts";
import {
  BIAS,
  exponentOf,
  KIND,
  MAX_EXPONENT,
  QUIET_BIT,
  roundingMode,
  TOP_BIT,
  x87FromDouble,
  x87FromSingle,
  x87Kind,
  x87ToDouble,
  x87ToInteger,
  x87ToSingle,
} from "./format.ts";
import { donePacked, FLAGS_SHIFT, REFUSED } from "./quick.ts";
import { EXCEPTIONS, type Extended, STATUS } from "./state.ts";

/** Formats in memory: bits of the fraction and of the exponent. */
const SHAPE = { 32: { fraction: 23, exponent: 8 }, 64: { fraction: 52, exponent: 11 } } as const;

/** A number that is not normal, as a load takes it: a signalling NaN becomes quiet. */
function unusualLoad(name: string, from: Helper): Helper {
  return helper(name, from.params, ["i64", "i32"], (x, bits) => {
    const [sig, se, flags] = x.callMany(from, bits);
    const signalling = x.c.let(x.call(x87Kind, sig, se).eq(KIND.SNAN));
    donePacked(x, select(signalling, sig.or(QUIET_BIT), sig), se, select(signalling, i32(STATUS.IE), flags));
  });
}

const x87LoadSingle = unusualLoad("x87LoadSingle", x87FromSingle);
const x87LoadDouble = unusualLoad("x87LoadDouble", x87FromDouble);

/** A floating-point number from memory, fixed; `se` has flags in its upper half. */
export function widenReal(x: Sem, bits: Val): Extended {
  const { c } = x;
  const width = x.bits(0) === 32 ? 32 : 64;
  const { fraction, exponent } = SHAPE[width];
  const largest = 2 ** exponent - 1;
  const field = c.let((width === 32 ? bits.shrU(fraction) : bits.shrU(fraction).wrap()).and(largest));
  const sig = c.local("i64");
  const se = c.local("i32");
  c.if(
    field.sub(1).ltU(largest - 1),
    () => {
      c.set(sig, (width === 32 ? bits.zx() : bits).shl(63 - fraction).or(TOP_BIT));
      const sign = (width === 32 ? bits.shrU(31) : bits.shrU(63).wrap()).shl(15);
      c.set(se, field.add(BIAS - (largest >> 1)).or(sign));
    },
    () => {
      const results = x.callMany(width === 32 ? x87LoadSingle : x87LoadDouble, bits);
      c.set(sig, results[0]);
      c.set(se, results[1]);
    },
    "likely",
  );
  return { sig, se };
}

/** A signed integer (i64), fixed. */
export function widenInteger(x: Env, value: Val): Extended {
  const { c } = x;
  const number = c.let(value);
  const sign = c.let(number.shrS(63));
  const magnitude = c.let(number.xor(sign).sub(sign));
  const shift = c.let(magnitude.clz());
  const e = i32(BIAS + 63)
    .sub(shift.wrap())
    .or(sign.wrap().and(0x8000));
  return { sig: c.let(magnitude.shl(shift)), se: c.let(select(number.eqz(), i32(0), e)) };
}

/** (sig, se) -> (bits as i64, flags), or REFUSED as flags where an exception is unmasked. */
function narrow(name: string, width: 32 | 64, general: Helper): Helper {
  const { fraction, exponent } = SHAPE[width];
  const largest = 2 ** exponent - 1;
  const below = 63 - fraction;
  return helper(name, ["i64", "i32"], ["i64", "i32"], (x, sig, se) => {
    const { c } = x;
    const field = c.let(exponentOf(se).sub(BIAS - (largest >> 1)));
    // The largest exponent is left out: rounding may carry into it.
    const usual = sig
      .ltS(0)
      .and(field.sub(1).ltU(largest - 2))
      .and(x.get(FCW).and(0xc20).eq(0x20));
    c.if(
      usual,
      () => {
        const rest = c.let(sig.shl(64 - below));
        const kept = c.let(sig.shrU(below));
        const up = c.let(rest.ltS(0).and(rest.shl(1).or(kept.and(1)).ne(0)));
        const packed = kept
          .and((1n << BigInt(fraction)) - 1n)
          .or(field.zx().shl(fraction))
          .add(up.zx())
          .or(
            se
              .shrU(15)
              .zx()
              .shl(width - 1),
          );
        x.done(packed, rest.ne(0).mul(STATUS.PE).or(up.mul(STATUS.C1)));
      },
      undefined,
      "likely",
    );
    const [bits, flags] = x.callMany(general, 1, sig, se);
    const unmasked = flags.and(x.get(FCW).not()).and(EXCEPTIONS);
    x.done(bits, select(unmasked, i32(REFUSED), flags));
  });
}

export const x87NarrowSingle = narrow("x87NarrowSingle", 32, x87ToSingle);
export const x87NarrowDouble = narrow("x87NarrowDouble", 64, x87ToDouble);

/** (sig, se, bits, mode) -> (value, flags or REFUSED): to a signed integer. */
export const x87NarrowInteger = helper(
  "x87NarrowInteger",
  ["i64", "i32", "i32", "i32"],
  ["i64", "i32"],
  (x, sig, se, bits, mode) => {
    const { c } = x;
    const e = c.let(exponentOf(se).sub(BIAS));
    const known = mode.eqz().or(mode.eq(ROUND.ZERO)).and(x.get(FCW).and(STATUS.PE).ne(0));
    c.if(
      sig
        .ltS(0)
        .and(e.ltU(bits.sub(2)))
        .and(known),
      () => {
        const whole = c.let(sig.shrU(i64(63).sub(e.zx())));
        const rest = c.let(sig.shl(1).shl(e.zx()));
        const nearest = rest.ltS(0).and(rest.shl(1).or(whole.and(1)).ne(0));
        const up = c.let(nearest.and(mode.eqz()));
        const magnitude = c.let(whole.add(up.zx()));
        const flags = rest.ne(0).mul(STATUS.PE).or(up.mul(STATUS.C1));
        x.done(select(se.and(0x8000), magnitude.neg(), magnitude), flags);
      },
      undefined,
      "likely",
    );
    const [value, flags] = x.callMany(x87ToInteger, 1, sig, se, bits, mode);
    const unmasked = flags.and(x.get(FCW).not()).and(EXCEPTIONS);
    x.done(value, select(unmasked, i32(REFUSED), flags));
  },
);

/** (aSig, aSe, bSig, bSe, quiet, flags of b) -> relation as FCOMI has it, flags in the upper half; REFUSED where an exception is unmasked. */
export const x87QuickCompare = helper(
  "x87QuickCompare",
  ["i64", "i32", "i64", "i32", "i32"],
  ["i32"],
  (x, aSig, aSe, bSig, bSe, quiet) => {
    const { c } = x;
    const ea = c.let(exponentOf(aSe));
    const eb = c.let(exponentOf(bSe));
    const normal = (e: Val): Val => e.sub(1).ltU(MAX_EXPONENT - 1);
    c.if(
      aSig.and(bSig).ltS(0).and(normal(ea)).and(normal(eb)).and(aSe.xor(bSe).and(0x8000).eqz()),
      () => {
        const equal = aSe.eq(bSe).and(aSig.eq(bSig));
        c.if(equal, () => x.done(RELATION.EQUAL));
        const smaller = ea.ltU(eb).or(ea.eq(eb).and(aSig.ltU(bSig)));
        x.done(smaller.xor(aSe.shrU(15)).mul(RELATION.LESS));
      },
      undefined,
      "likely",
    );
    const [relation, flags] = x.callMany(x87Compare, aSig, aSe, bSig, bSe, quiet);
    const unmasked = flags.and(x.get(FCW).not()).and(EXCEPTIONS);
    x.done(select(unmasked, i32(REFUSED), relation.or(flags.shl(FLAGS_SHIFT))));
  },
);

/** Compares in an instruction: relation and flags, or the other course. */
export function compareQuickly(
  x: Env,
  stack: FloatStack,
  a: Extended,
  b: Extended,
  quiet: number,
): { readonly relation: Val; readonly flags: Val } {
  const result = x.call(x87QuickCompare, a.sig, a.se, b.sig, b.se, quiet);
  stack.unless(result.ltS(0));
  return { relation: x.c.let(result.and(0xff)), flags: result.shrU(FLAGS_SHIFT) };
}

/** The rounding mode of the control word, or truncation (FISTTP). */
export function integerMode(x: Env, truncates: boolean): Val {
  return truncates ? i32(ROUND.ZERO) : roundingMode(x);
}
