// Arithmetic by the host where that gives what the guest's CPU does, by exact helpers elsewhere (Intel SDM Vol. 1 11.5). A cheap test of
// the result and of what is not known of the operands decides for nearly all; a second one sorts out zeros.

import type { Local } from "../../wasm/code.ts";
import type { ValType } from "../../wasm/ops.ts";
import { op, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper } from "../helper.ts";
import type { Env, FloatLanes, Sem } from "../semantics.ts";
import { raiseFloat, settled } from "./float-exceptions.ts";
import { packed, quick, type Shape, scalar } from "./float-shape.ts";

/** How an operation of one shape is tested, on scalars or on vectors. */
export interface Form {
  readonly lanes: FloatLanes;
  readonly type: "f32" | "f64" | "v128";
  /** What must hold for the host's result to be the guest's: cheap conditions, and one in full, where `zero` is the condition or mask of results
   *  that are zero and raise nothing. */
  fast(x: Env, result: Val, operands: readonly Val[]): readonly Val[];
  full(x: Env, result: Val, operands: readonly Val[], zero: Val): Val;
  /** Zeros, normal numbers and infinities only. */
  ordinary(value: Val): Val;
}

export function scalarForm(s: Shape): Form {
  return {
    lanes: s.scalar,
    type: s.scalar,
    fast: (x, result, operands) => [
      ...operands.map((value) => quick.scalarOperand(s, value)),
      quick.scalarResult(x, s, result),
    ],
    full: (x, result, operands, zero) =>
      operands.reduce(
        (all, value) => all.and(scalar.ordinary(s, value)),
        settled(x).and(scalar.safeResult(s, result).or(zero)),
      ),
    ordinary: (value) => scalar.ordinary(s, value),
  };
}

export function packedForm(s: Shape): Form {
  return {
    lanes: s.packed,
    type: "v128",
    fast: (x, result, operands) => [quick.packed(x, s, [...operands, result])],
    full: (x, result, operands, zero) => {
      const safe = op("v128.or", packed.safeResult(s, result), zero);
      const good = operands.reduce((all, value) => op("v128.and", all, packed.ordinary(s, value)), safe);
      return settled(x).and(packed.all(s, good));
    },
    ordinary: (value) => packed.all(s, packed.ordinary(s, value)),
  };
}

export interface HostOperation {
  readonly form: Form;
  readonly host: (...operands: readonly Val[]) => Val;
  /** The operation in full where a cheap condition fails: (operands) to (result, whether it or an operand is not ordinary). */
  readonly slow: Helper;
}

/** `exactly` gives result and flags. */
export function hostOperation(
  name: string,
  form: Form,
  operands: 1 | 2,
  host: (...operands: readonly Val[]) => Val,
  zero: (result: Val, ...operands: readonly Val[]) => Val,
  exactly: (x: Env, ...operands: readonly Val[]) => readonly [value: Val, flags: Val],
): HostOperation {
  const params = new Array<ValType>(operands).fill(form.type);
  const slow = faultingHelper(name, params, [form.type, "i32"], (x, ...values) => {
    const { c } = x;
    const result = c.let(host(...values));
    c.if(form.full(x, result, values, zero(result, ...values)), () => x.done(result, 0));
    const [value, flags] = exactly(x, ...values);
    x.invoke(raiseFloat, flags);
    const exact = c.let(value);
    x.done(exact, values.reduce((all: Val, one) => all.and(form.ordinary(one)), form.ordinary(exact)).eqz());
  });
  return { form, host, slow };
}

/** An operation on fixed values, of which those that are known to be ordinary are not among `doubtful`. `rare` runs where its condition, that
 *  the result or an operand is not ordinary, may hold. */
export function hostOrExact(
  x: Sem,
  operation: HostOperation,
  operands: readonly Val[],
  doubtful: readonly Val[],
  rare: (condition: Val, result: Val) => void = () => undefined,
): Local {
  const { c } = x;
  const { form, host, slow } = operation;
  const result = c.local(form.type, host(...operands));
  c.unlessAll(form.fast(x, result, doubtful), () => {
    const [value, condition] = x.callMany(slow, ...operands);
    c.set(result, value);
    rare(condition, result);
  });
  return result;
}

/** The same as a whole instruction: the operands are its own, by number, and the result goes to operand 0. */
export function writeHostOrExact(
  x: Sem,
  operation: HostOperation,
  operands: readonly (readonly [n: number, value: Val])[],
): void {
  const { lanes, type } = operation.form;
  const write = (result: Val): void => (type === "v128" ? x.write(0, result) : x.writeFloat(0, result));
  const doubtful = operands.filter(([n]) => x.isMemory(n) || !x.isOrdinary(n, lanes));
  const result = hostOrExact(
    x,
    operation,
    operands.map(([, value]) => value),
    doubtful.map(([, value]) => value),
    (condition, exact) => x.unlessOrdinary(condition, () => write(exact)),
  );
  write(result);
  for (const [n] of doubtful) if (!x.isMemory(n)) x.setOrdinary(n, lanes);
  x.setOrdinary(0, lanes);
}
