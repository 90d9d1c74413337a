// Which mode the processor is in, and the checks that system instructions share (SDM Vol. 3A 2.2, 5.9).

import type { Val } from "../../wasm/value.ts";
import type { Env } from "../semantics.ts";
import {
  CPL,
  CR0,
  CR0_BIT,
  EFER,
  EFER_BIT,
  FLAG,
  RFLAGS,
  SEGMENTS,
  type SegmentFields,
  SREG,
  VECTOR,
} from "../state.ts";

export const CS: SegmentFields = SEGMENTS[SREG.CS];
export const SS: SegmentFields = SEGMENTS[SREG.SS];

/** Not zero in protected mode, virtual-8086 mode included. */
export function isProtected(x: Env): Val {
  return x.get(CR0).and(CR0_BIT.PE);
}

/** Not zero in virtual-8086 mode. */
export function isVirtual8086(x: Env): Val {
  return x.get(RFLAGS).and(FLAG.VM);
}

/** 1 in real-address and virtual-8086 mode: segments are loaded without descriptors. */
export function isRealOrVirtual(x: Env): Val {
  return isProtected(x).eqz().or(isVirtual8086(x).ne(0));
}

/** Not zero in IA-32e mode, compatibility mode included. */
export function isLongMode(x: Env): Val {
  return x.get(EFER).and(EFER_BIT.LMA);
}

/** #GP(0) for a privileged instruction outside ring 0. */
export function requireCpl0(x: Env): void {
  x.raiseIf(x.get(CPL), VECTOR.GP, 0);
}

/** #UD for instructions that are not recognized in real-address and virtual-8086 mode. */
export function requireProtected(x: Env): void {
  x.raiseIf(isRealOrVirtual(x), VECTOR.UD);
}

/** A linear address as the mode forms it: 32 bits outside IA-32e mode. */
export function wrapLinear(x: Env, linear: Val): Val {
  const fixed = x.c.let(linear);
  const kept = x.c.local("i64", fixed);
  x.c.if(isLongMode(x).eqz(), () => x.c.set(kept, fixed.and(0xffffffffn)));
  return kept;
}

/** IOPL as a number (SDM Vol. 1 3.4.3.3). */
export function iopl(x: Env): Val {
  return x.get(RFLAGS).bits(12, 2);
}
