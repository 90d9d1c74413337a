// Operands of x87 instructions: ST(i) by ModRM.rm, and numbers in memory in the formats that they convert from.

import type { Val } from "../../wasm/value.ts";
import type { Sem } from "../semantics.ts";
import { x87FromDouble, x87FromInteger, x87FromSingle } from "./format.ts";
import { note, useX87 } from "./state.ts";

export interface Number80 {
  readonly sig: Val;
  readonly se: Val;
  /** DE for a denormal. */
  readonly flags: Val;
}

/** i of ST(i) in rows `+i: Nq`. */
export function stackIndex(x: Sem): Val {
  return x.c.let(x.registerNumber(0).and(7));
}

/** Starts an instruction whose only operands are registers. */
export function begin(x: Sem): void {
  useX87(x);
  note(x);
}

/** Starts an instruction that reads a number from memory operand 0: a floating-point number of its width. */
export function beginWithReal(x: Sem): Number80 {
  useX87(x);
  const bits = x.read(0);
  note(x, x.address(0));
  const [sig, se, flags] = x.callMany(x.bits(0) === 32 ? x87FromSingle : x87FromDouble, bits);
  return { sig, se, flags };
}

/** The same with a signed integer. */
export function beginWithInteger(x: Sem): Omit<Number80, "flags"> {
  useX87(x);
  const bits = x.read(0);
  note(x, x.address(0));
  const [sig, se] = x.callMany(x87FromInteger, x.bits(0) === 16 ? bits.extend(16).sx() : bits.sx());
  return { sig, se };
}
