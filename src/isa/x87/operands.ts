// Operands of x87 instructions: ST(i) by ModRM.rm, and numbers in memory in the formats that they convert from.

import type { Val } from "../../wasm/value.ts";
import type { FloatStack, Sem } from "../semantics.ts";
import { FCW } from "../state.ts";
import { x87FromDouble, x87FromInteger, x87FromSingle } from "./format.ts";
import { FLAGS_SHIFT } from "./quick.ts";
import { widenInteger, widenReal } from "./quick-format.ts";
import { EXCEPTIONS, type Extended, note, useX87, withDenormal } from "./state.ts";

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

/** A floating-point number from memory operand 0, whose bits are there: after the pointers are noted, with flags of its own. */
export function realOperand(x: Sem, bits: Val): Number80 {
  note(x, x.address(0));
  const [sig, se, flags] = x.callMany(x.bits(0) === 32 ? x87FromSingle : x87FromDouble, bits);
  return { sig, se, flags };
}

/** An instruction on a floating-point number from memory: as stack values, where it is an ordinary one, or what a general function does. */
export function onReal(
  x: Sem,
  body: (stack: FloatStack, operand: Extended) => void,
  otherwise: (operand: Number80) => void,
): void {
  x.usually(
    () => x.read(0),
    (stack, bits) => {
      const operand = widenReal(x, bits);
      stack.unless(operand.se.shrU(FLAGS_SHIFT).ne(0));
      body(stack, operand);
    },
    (bits) => otherwise(realOperand(x, bits)),
  );
}

/** The same for a signed integer from memory. */
export function onInteger(
  x: Sem,
  body: (stack: FloatStack, operand: Extended) => void,
  otherwise: (operand: Extended) => void,
): void {
  x.usually(
    () => readInteger(x),
    (stack, value) => body(stack, widenInteger(x, value)),
    (value) => otherwise(integerOperand(x, value)),
  );
}

/** A signed integer from memory operand 0 as i64. */
function readInteger(x: Sem): Val {
  const bits = x.read(0);
  return x.c.let(x.bits(0) === 64 ? bits : x.bits(0) === 16 ? bits.extend(16).sx() : bits.sx());
}

/** The same as a number, after the pointers are noted. */
function integerOperand(x: Sem, value: Val): Extended {
  note(x, x.address(0));
  const [sig, se] = x.callMany(x87FromInteger, value);
  return { sig, se };
}

/** An instruction on registers only: the body, or what a general function does. */
export function onRegisters(x: Sem, body: (stack: FloatStack) => void, otherwise: () => void): void {
  x.usually(
    () => {},
    (stack) => body(stack),
    () => {
      note(x);
      otherwise();
    },
  );
}

/** Takes the other course where flags raise an exception that is not masked; gives them, fixed. */
export function maskedFlags(x: Sem, stack: FloatStack, flags: Val): Val {
  const raised = withDenormal(x, flags);
  stack.unless(raised.and(x.get(FCW).not()).and(EXCEPTIONS));
  return raised;
}
