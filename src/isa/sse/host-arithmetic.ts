// Arithmetic by the host where that gives what the guest's CPU does, by exact helpers elsewhere (Intel SDM Vol. 1 11.5). A cheap test of
// the result and of what is not known of the operands decides for nearly all; a second one sorts out zeros.

import type { Local } from "../../wasm/code.ts";
import { op, type Val } from "../../wasm/value.ts";
import type { FloatLanes, Sem } from "../semantics.ts";
import { raiseFloat, settled } from "./float-exceptions.ts";
import { packed, quick, type Shape, scalar } from "./float-shape.ts";

/** How an operation of one shape is tested, on scalars or on vectors. */
export interface Form {
  readonly lanes: FloatLanes;
  /** What must hold for the host's result to be the guest's: cheap conditions, and one in full, where `zero` is the condition or mask of results
   *  that are zero and raise nothing. */
  fast(x: Sem, result: Val, operands: readonly Val[]): readonly Val[];
  full(x: Sem, result: Val, operands: readonly Val[], zero: Val): Val;
  /** Zeros, normal numbers and infinities only. */
  ordinary(value: Val): Val;
}

export function scalarForm(s: Shape): Form {
  return {
    lanes: s.scalar,
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
    fast: (x, result, operands) => [quick.packed(x, s, [...operands, result])],
    full: (x, result, operands, zero) => {
      const safe = op("v128.or", packed.safeResult(s, result), zero);
      const good = operands.reduce((all, value) => op("v128.and", all, packed.ordinary(s, value)), safe);
      return settled(x).and(packed.all(s, good));
    },
    ordinary: (value) => packed.all(s, packed.ordinary(s, value)),
  };
}

/** An operation whose operands (fixed) may be anything but those that are known to be ordinary, which are not among `doubtful`. `exactly`
 *  gives value and flags; `rare` runs behind it. */
export function hostOrExact(
  x: Sem,
  form: Form,
  host: Val,
  doubtful: readonly Val[],
  zero: (result: Val) => Val,
  exactly: () => readonly [value: Val, flags: Val],
  rare: (result: Val) => void = () => undefined,
): Local {
  const { c } = x;
  const result = c.local(host.type, host);
  c.unlessAll(form.fast(x, result, doubtful), () => {
    c.if(
      form.full(x, result, doubtful, zero(result)),
      () => {},
      () => {
        const [value, flags] = exactly();
        x.invoke(raiseFloat, flags);
        c.set(result, value);
        rare(result);
      },
    );
  });
  return result;
}

/** The same as a whole instruction: the operands are its own, by number, and the result goes to operand 0. */
export function writeHostOrExact(
  x: Sem,
  form: Form,
  host: Val,
  operands: readonly (readonly [n: number, value: Val])[],
  zero: (result: Val) => Val,
  exactly: () => readonly [value: Val, flags: Val],
): void {
  const isVector = form.lanes === "f32x4" || form.lanes === "f64x2";
  const write = (result: Val): void => (isVector ? x.write(0, result) : x.writeFloat(0, result));
  const doubtful = operands.filter(([n]) => x.isMemory(n) || !x.isOrdinary(n, form.lanes));
  const registers = doubtful.filter(([n]) => !x.isMemory(n));
  const result = hostOrExact(
    x,
    form,
    host,
    doubtful.map(([, value]) => value),
    zero,
    exactly,
    (exact) =>
      x.unlessOrdinary(
        () => registers.reduce((all, [, value]) => all.and(form.ordinary(value)), form.ordinary(exact)),
        () => write(exact),
      ),
  );
  write(result);
  for (const [n] of registers) x.setOrdinary(n, form.lanes);
  x.setOrdinary(0, form.lanes);
}
