// The binary32 and binary64 formats: their constants, and the way between their bits and significands (Intel SDM Vol. 1 4.2.2, 4.8).
// Bits are i64, zero-extended for binary32.

import type { Code, Local } from "../../wasm/code.ts";
import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import { ROUND, round } from "./rounding.ts";
import { shiftRightJam } from "./significand.ts";

export interface Format {
  readonly bits: 32 | 64;
  /** Bits of the significand, the implied one included. */
  readonly precision: number;
  /** Bias, and largest exponent. */
  readonly bias: number;
  readonly sign: bigint;
  readonly infinity: bigint;
  readonly quiet: bigint;
  /** The default NaN, "QNaN floating-point indefinite". */
  readonly indefinite: bigint;
  readonly leastNormal: bigint;
}

function format(bits: 32 | 64, precision: number, bias: number): Format {
  const fraction = BigInt(precision - 1);
  const sign = 1n << BigInt(bits - 1);
  const infinity = BigInt(2 * bias + 1) << fraction;
  const quiet = 1n << (fraction - 1n);
  return {
    bits,
    precision,
    bias,
    sign,
    infinity,
    quiet,
    indefinite: sign | infinity | quiet,
    leastNormal: 1n << fraction,
  };
}

export const BINARY32 = format(32, 24, 127);
export const BINARY64 = format(64, 53, 1023);

/** Exception flags in the order that MXCSR and the x87 status word share, and the control bits of MXCSR (SDM Vol. 1 10.2.3). */
export const FLOAT = {
  IE: 1 << 0,
  DE: 1 << 1,
  ZE: 1 << 2,
  OE: 1 << 3,
  UE: 1 << 4,
  PE: 1 << 5,
  DAZ: 1 << 6,
  IM: 1 << 7,
  DM: 1 << 8,
  ZM: 1 << 9,
  OM: 1 << 10,
  UM: 1 << 11,
  PM: 1 << 12,
  RC_SHIFT: 13,
  FTZ: 1 << 15,
} as const;

export function magnitude(f: Format, bits: Val): Val {
  return bits.and(f.sign - 1n);
}

/** i32 0 or 1. */
export function signOf(f: Format, bits: Val): Val {
  return bits.shrU(f.bits - 1).wrap();
}

export function isNan(f: Format, mag: Val): Val {
  return mag.gtU(f.infinity);
}

/** For a magnitude: a NaN whose quiet bit is clear. */
export function isSignalling(f: Format, mag: Val): Val {
  return mag.gtU(f.infinity).and(mag.and(f.quiet).eqz());
}

/** For a magnitude: not zero, and below the least normal number. */
export function isDenormal(f: Format, mag: Val): Val {
  return mag.sub(1).ltU(f.leastNormal - 1n);
}

/** Exponent and significand of a finite magnitude (fixed), as significand.ts has them. */
export function unpack(c: Code, f: Format, mag: Val): { e: Local; sig: Local } {
  const fraction = mag.and(f.leastNormal - 1n);
  const field = c.let(mag.shrU(f.precision - 1).wrap());
  const e = c.local("i32", field.sub(f.bias));
  const sig = c.local("i64", fraction.or(f.leastNormal).shl(64 - f.precision));
  c.if(
    field.eqz(),
    () => {
      const raw = c.let(fraction.shl(64 - f.precision));
      const shift = c.let(raw.clz());
      c.set(sig, raw.shl(shift));
      c.set(
        e,
        shift
          .wrap()
          .neg()
          .add(1 - f.bias),
      );
    },
    undefined,
    "unlikely",
  );
  return { e, sig };
}

/**
 * Rounds to the format and packs: (sign, e, hi, lo, mxcsr) to (bits, flags). Tininess is detected after rounding; where underflow is
 * unmasked a tiny result raises it even if exact; flush-to-zero acts where it is masked (SDM Vol. 1 4.9.1.5, 10.2.3.3).
 */
function packer(f: Format): Helper {
  const least = 1 - f.bias;
  return helper(
    `roundPack${f.bits}`,
    ["i32", "i32", "i64", "i64", "i32"],
    ["i64", "i32"],
    (x, sign, e, hi, lo, mxcsr) => {
      const { c } = x;
      const mode = c.let(mxcsr.bits(FLOAT.RC_SHIFT, 2));
      const signBits = c.let(sign.zx().shl(f.bits - 1));
      const fieldShift = f.precision - 1;
      const rounded = round(c, hi, lo, f.precision, sign, mode);
      const exponent = c.let(e.add(rounded.carry));
      const precisionFlag = (inexact: Val): Val => inexact.shl(5);

      c.if(exponent.sub(least).ltU(2 * f.bias), () => {
        const fraction = rounded.sig.shrU(64 - f.precision).and(f.leastNormal - 1n);
        const field = exponent.add(f.bias).zx().shl(fieldShift);
        x.done(fraction.or(field).or(signBits), precisionFlag(rounded.inexact));
      });

      c.if(exponent.gtS(0), () => {
        // Overflow: infinity, or the largest finite number where the rounding goes towards zero for this sign.
        const finite = mode.eq(ROUND.ZERO).or(mode.eq(select(sign, i32(ROUND.UP), ROUND.DOWN)));
        const bits = i64(f.infinity).sub(finite.zx()).or(signBits);
        const inexact = rounded.inexact.or(mxcsr.and(FLOAT.OM).ne(0));
        x.done(bits, precisionFlag(inexact).or(FLOAT.OE));
      });

      c.if(mxcsr.and(FLOAT.UM).eqz(), () => x.done(signBits, precisionFlag(rounded.inexact).or(FLOAT.UE)));
      c.if(mxcsr.and(FLOAT.FTZ), () => x.done(signBits, FLOAT.UE | FLOAT.PE));
      const [shiftedHigh, shiftedLow] = x.callMany(shiftRightJam, hi, lo, e.neg().add(least));
      const denormal = round(c, shiftedHigh, shiftedLow, f.precision, sign, mode);
      // A fraction that grew to 2^(precision - 1) is the least normal number in the right form.
      const bits = denormal.sig.shrU(64 - f.precision).or(signBits);
      x.done(bits, denormal.inexact.mul(FLOAT.UE | FLOAT.PE));
    },
  );
}

export const roundPack32 = packer(BINARY32);
export const roundPack64 = packer(BINARY64);

export function roundPack(f: Format): Helper {
  return f.bits === 32 ? roundPack32 : roundPack64;
}
