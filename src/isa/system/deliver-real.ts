// Delivery of an event in real-address mode through the interrupt vector table (SDM Vol. 3B 20.1.4; Vol. 2A INT n).

import { i32, type Val } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { FLAG, GPR, IDTR_BASE, RFLAGS, RIP, SREG } from "../state.ts";
import { setRealSegment } from "./descriptors.ts";
import { checkIdtLimit, finishDelivery, pushedFlags } from "./events.ts";
import { CS, SS, wrapLinear } from "./modes.ts";
import { framePush } from "./stack.ts";

/** Pushes words or doublewords on the present stack and gives the new pointer, which the caller writes when nothing can fault any more. */
export function pushPresent(x: Env, bytes: Val, error: Val, user: Val, values: readonly Val[]): Val {
  let pointer: Val = x.c.let(x.gpr(GPR.RSP, 32));
  const base = x.c.let(x.get(SS.base));
  const limit = x.c.let(x.get(SS.limit));
  const attr = x.c.let(x.get(SS.attr));
  for (const value of values) pointer = x.call(framePush, pointer, value, bytes, base, limit, attr, error, user);
  return pointer;
}

/** Vector, kind, RIP to return to. There are no error codes in this mode. */
export const deliverReal = faultingHelper("deliverReal", ["i32", "i32", "i64"], [], (x, vector, kind, rip) => {
  const { c } = x;
  checkIdtLimit(x, vector, 4, i32(0));
  const entry = x.load(32, wrapLinear(x, x.get(IDTR_BASE).add(vector.shl(2).zx())), "system");
  const flags = c.let(pushedFlags(x, vector, kind));
  const pointer = pushPresent(x, i32(2), i32(0), i32(0), [flags, x.get(CS.selector), rip.wrap()]);
  x.setGpr(GPR.RSP, 32, pointer);
  setRealSegment(x, i32(SREG.CS), c.let(entry.shrU(16)));
  x.put(RIP, entry.and(0xffff).zx());
  x.put(RFLAGS, x.get(RFLAGS).and(~(FLAG.IF | FLAG.TF | FLAG.AC | FLAG.RF)));
  finishDelivery(x, vector);
  x.invoke(updateMode);
  x.done();
});
