// Rounding of a 128-bit significand to the precision of a format (IEEE 754-2019 section 4.3; Intel SDM Vol. 1 4.8.4).

import type { Code } from "../../wasm/code.ts";
import { i64, type Operand, select, type Val } from "../../wasm/value.ts";

/** Rounding control as in MXCSR.RC and the x87 control word. */
export const ROUND = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

const TOP = 1n << 63n;

export interface Rounded {
  /** The significand with what is below its precision cleared. */
  readonly sig: Val;
  /** i32: rounding carried out of the top, so that the exponent grows by one. */
  readonly carry: Val;
  /** i32: the value changed. */
  readonly inexact: Val;
  /** i32: the magnitude grew. */
  readonly up: Val;
}

/** Rounds hi : lo (fixed) to the upper `precision` bits of hi (24 to 64). `sign` and `mode` are i32. */
export function round(c: Code, hi: Val, lo: Val, precision: Operand, sign: Val, mode: Val): Rounded {
  const constant = typeof precision === "number" ? precision : undefined;
  // What is rounded away, with its first bit on top. A shift by 64 would be one by 0.
  const rest = c.let(
    constant === undefined
      ? select((precision as Val).eq(64), lo, hi.shl((precision as Val).zx()).or(lo.ne(0).zx()))
      : constant === 64
        ? lo
        : hi.shl(constant).or(lo.ne(0).zx()),
  );
  const unit = c.let(
    constant === undefined ? i64(1).shl(i64(64).sub((precision as Val).zx())) : i64(1n << BigInt(64 - constant)),
  );
  const inexact = c.let(rest.ne(0));
  const up = c.local("i32");
  c.if(
    mode.eqz(),
    () => c.set(up, rest.gtU(TOP).or(rest.eq(TOP).and(hi.and(unit).ne(0)))),
    () => c.set(up, inexact.and(mode.eq(ROUND.DOWN).and(sign).or(mode.eq(ROUND.UP).and(sign.eqz())))),
    "likely",
  );
  const cut = c.let(hi.and(unit.neg()));
  const sum = c.let(cut.add(select(up, unit, i64(0))));
  const carry = c.let(sum.eqz().and(up));
  return { sig: c.let(select(carry, i64(TOP), sum)), carry, inexact, up };
}
