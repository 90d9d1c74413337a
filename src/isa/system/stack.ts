// Stack accesses outside the instruction set's own PUSH and POP: of event delivery, far transfers and task switches
// (SDM Vol. 3A 6.12, 6.14; Vol. 1 6.2).

import { i32, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, helper } from "../helper.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Bits, Env } from "../semantics.ts";
import { GPR, SEG_ATTR, VECTOR } from "../state.ts";
import { beyondLimit } from "./descriptors.ts";
import { SS, wrapLinear } from "./modes.ts";

/** Bits of the stack pointer that count, by a stack segment's access rights. */
export function stackMask(attr: Val): Val {
  return select(attr.and(SEG_ATTR.DB), i32(-1), 0xffff);
}

/** Adds to a stack pointer as wide as the segment says, keeping the bits above. */
export function moveStackPointer(pointer: Val, distance: Val, attr: Val): Val {
  const mask = stackMask(attr);
  return pointer.and(mask.not()).or(pointer.add(distance).and(mask));
}

/**
 * Pushes on a stack outside 64-bit mode that need not be the present one: pointer, value, bytes (2 or 4), base, limit, access rights,
 * error code of #SS, and whether with user rights. Gives the new pointer.
 */
export const framePush = faultingHelper(
  "framePush",
  ["i32", "i32", "i32", "i64", "i32", "i32", "i32", "i32"],
  ["i32"],
  (x, pointer, value, bytes, base, limit, attr, error, user) => {
    const { c } = x;
    const next = c.let(moveStackPointer(pointer, bytes.neg(), attr));
    const offset = c.let(next.and(stackMask(attr)));
    x.raiseIf(x.call(beyondLimit, offset, bytes, limit, attr), VECTOR.SS, error);
    const linear = c.let(wrapLinear(x, base.add(offset.zx())));
    c.if(
      user,
      () => {
        c.if(
          bytes.eq(2),
          () => x.store(16, linear, value.and(0xffff), "stack"),
          () => x.store(32, linear, value, "stack"),
        );
      },
      () => {
        c.if(
          bytes.eq(2),
          () => x.store(16, linear, value.and(0xffff), "system"),
          () => x.store(32, linear, value, "system"),
        );
      },
    );
    x.done(next);
  },
);

/** Linear address of `bytes` bytes on the present stack, `distance` from its pointer; #SS(0) beyond the limit or canonical range. */
export const stackLinear = faultingHelper("stackLinear", ["i32", "i32"], ["i64"], (x, distance, bytes) => {
  const { c } = x;
  c.if(in64BitMode(x), () => {
    const linear = c.let(x.gpr(GPR.RSP, 64).add(distance.sx()));
    x.raiseIf(notCanonical(linear), VECTOR.SS, 0);
    x.done(linear);
  });
  const attr = c.let(x.get(SS.attr));
  x.raiseIf(attr.and(SEG_ATTR.UNUSABLE), VECTOR.SS, 0);
  const offset = c.let(x.gpr(GPR.RSP, 32).add(distance).and(stackMask(attr)));
  x.raiseIf(x.call(beyondLimit, offset, bytes, x.get(SS.limit), attr), VECTOR.SS, 0);
  x.done(wrapLinear(x, x.get(SS.base).add(offset.zx())));
});

/** Moves the present stack pointer: RSP, ESP or SP as the mode and the stack segment say. */
export const adjustStack = helper("adjustStack", ["i32"], [], (x, distance) => {
  const { c } = x;
  c.if(in64BitMode(x), () => {
    x.setGpr(GPR.RSP, 64, x.gpr(GPR.RSP, 64).add(distance.sx()));
    x.done();
  });
  c.if(
    x.get(SS.attr).and(SEG_ATTR.DB),
    () => x.setGpr(GPR.RSP, 32, x.gpr(GPR.RSP, 32).add(distance)),
    () => x.setGpr(GPR.RSP, 16, x.gpr(GPR.RSP, 16).add(distance).and(0xffff)),
  );
  x.done();
});

/** Reads the item at `distance` bytes from the present stack pointer, zero-extended to i64. */
export function readStack(x: Env, bits: Bits, distance: Val | number, wide: boolean): Val {
  const { c } = x;
  const linear = wide
    ? x.gpr(GPR.RSP, 64).add(typeof distance === "number" ? BigInt(distance) : distance.sx())
    : x.call(stackLinear, distance, bits / 8);
  return c.let(x.load(bits, linear, "stack").zx());
}
