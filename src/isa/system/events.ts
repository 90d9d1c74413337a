// The kinds of events that go through the IDT, and what each means for the pushed image and the error codes
// (SDM Vol. 3A 6.3 to 6.15; numbering of Vol. 3C 24.8.3).

import type { Val } from "../../wasm/value.ts";
import type { Env } from "../semantics.ts";
import { CPL, DEBUG_TRAPS, DR7, FLAG, IDTR_LIMIT, RFLAGS, SHADOW, VECTOR } from "../state.ts";

export const EVENT = {
  /** Maskable interrupt from outside. */
  EXTERNAL: 0,
  NMI: 2,
  /** Exception found by the processor. */
  EXCEPTION: 3,
  /** INT n. */
  SOFTWARE: 4,
  /** INT1: privileged software exception, not checked against the gate's DPL. */
  ICEBP: 5,
  /** INT3, INTO. */
  SOFTWARE_EXCEPTION: 6,
} as const;

/** 1 for INT n, INT3 and INTO: the gate's DPL counts, and error codes have EXT clear (SDM Vol. 3A 6.12.1.2, 6.13). */
export function isSoftware(kind: Val): Val {
  return kind.eq(EVENT.SOFTWARE).or(kind.eq(EVENT.SOFTWARE_EXCEPTION));
}

/** Error code that points at a gate of the IDT (SDM Vol. 3A 6.13). */
export function idtError(vector: Val, ext: Val): Val {
  return vector.shl(3).or(2).or(ext);
}

/** RFLAGS as pushed: RF is set for faults, so that an instruction breakpoint is not hit again (SDM Vol. 3B 17.3.1.1). */
export function pushedFlags(x: Env, vector: Val, kind: Val): Val {
  const fault = kind.eq(EVENT.EXCEPTION).and(vector.ne(VECTOR.DB));
  return x.rflags().or(fault.shl(16));
}

/** Debug state and the interrupt shadow after delivery (SDM Vol. 3A 6.8.3; Vol. 3B 17.2.4). */
export function finishDelivery(x: Env, vector: Val): void {
  x.put(SHADOW, 0);
  // An instruction that faults or that itself goes to a handler is not stepped (SDM Vol. 3B 17.3.1.4).
  x.put(DEBUG_TRAPS, 0);
  x.c.if(vector.eq(VECTOR.DB), () => x.put(DR7, x.get(DR7).and(~DR7_GD)), undefined, "unlikely");
}

export const DR7_GD = 1 << 13;

/** Clears flags on entry to a handler; `interruptGate` (i32) clears IF too. */
export function clearFlagsOnEntry(x: Env, interruptGate: Val): void {
  const cleared = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM;
  x.put(RFLAGS, x.get(RFLAGS).and(interruptGate.ne(0).shl(9).or(cleared).not()));
}

/** #GP for a software interrupt through a gate that the present privilege may not use. */
export function checkGateDpl(x: Env, software: Val, dpl: Val, error: Val): void {
  x.raiseIf(software.and(dpl.ltU(x.get(CPL))), VECTOR.GP, error);
}

/** #GP where the IDT ends before the gate's last byte. */
export function checkIdtLimit(x: Env, vector: Val, bytes: number, error: Val): void {
  x.raiseIf(
    vector
      .mul(bytes)
      .add(bytes - 1)
      .gtU(x.get(IDTR_LIMIT)),
    VECTOR.GP,
    error,
  );
}
