// SIMD floating-point exceptions (Intel SDM Vol. 1 11.5; Vol. 3A 6.15 "Interrupt 19").

import type { Val } from "../../wasm/value.ts";
import { faultingHelper } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { FLOAT } from "../softfloat/format.ts";
import { CR4, CR4_BIT, MXCSR, VECTOR } from "../state.ts";

const BEFORE_COMPUTATION = FLOAT.IE | FLOAT.DE | FLOAT.ZE;
const ALL = 0x3f;
const MASK_SHIFT = 7;

/** Sets flags in MXCSR and raises #XM, or #UD without CR4.OSXMMEXCPT, where one is unmasked. An unmasked exception that is found before the
 *  computation keeps those of the result from being found (SDM Vol. 1 11.5.2.1). */
export const raiseFloat = faultingHelper("raiseFloat", ["i32"], [], (x, raised) => {
  const { c } = x;
  const mxcsr = c.let(x.get(MXCSR));
  const unmasked = c.let(raised.and(mxcsr.shrU(MASK_SHIFT).not()).and(ALL));
  const flags = c.local("i32", raised);
  c.if(unmasked.and(BEFORE_COMPUTATION), () => c.set(flags, flags.and(BEFORE_COMPUTATION)));
  x.put(MXCSR, mxcsr.or(flags));
  c.if(unmasked, () => {
    x.raiseIf(x.get(CR4).and(CR4_BIT.OSXMMEXCPT).eqz(), VECTOR.UD);
    x.raise(VECTOR.XM);
  });
  x.done();
});

const SETTLED = (3 << FLOAT.RC_SHIFT) | FLOAT.PM | FLOAT.PE;

/** Rounding is to nearest, and an inexact result has nothing to record: the host's arithmetic gives what the guest's does, for normal
 *  operands and results. Whether other exceptions are masked does not matter to those, nor do DAZ and FTZ. */
export function settled(x: Env): Val {
  return x
    .get(MXCSR)
    .and(SETTLED)
    .eq(FLOAT.PM | FLOAT.PE);
}
