// The stack as instructions use it: width of the stack pointer by mode, accesses through SS (SDM Vol. 1 6.2.3 to 6.2.5; Vol. 2B PUSH, POP).
// The stack pointer changes only after the access has succeeded. `long` is `Sem.long`: known at build time to be 64-bit mode.

import { i64, type Operand, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper, helper } from "../helper.ts";
import { in64BitMode, segmentAddress } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { GPR, SEG_ATTR, SEGMENTS, SREG } from "../state.ts";

export type StackBits = 16 | 32 | 64;

/** The bits of RSP that address the stack, i64: all in 64-bit mode, else 32 or 16 by SS.B. */
export function stackMask(x: Env): Val {
  const legacy = select(x.get(SEGMENTS[SREG.SS].attr).and(SEG_ATTR.DB), i64(0xffffffff), i64(0xffff));
  return x.c.let(select(in64BitMode(x), i64(-1), legacy));
}

/** Sets the stack pointer to an offset within `mask`: 16 bits keep the rest of RSP, 32 bits clear it. */
export function setStackPointer(x: Env, mask: Val, offset: Val): void {
  const fixed = x.c.let(offset);
  x.c.if(
    mask.eq(0xffff),
    () => x.setGpr(GPR.RSP, 16, fixed.wrap()),
    () => x.setGpr(GPR.RSP, 64, fixed),
  );
}

const valueType = (bits: StackBits): "i32" | "i64" => (bits === 64 ? "i64" : "i32");

function pushHelper(bits: StackBits): Helper {
  return faultingHelper(`push${bits}`, [valueType(bits)], [], (x, value) => {
    const mask = stackMask(x);
    const offset = x.c.let(
      x
        .gpr(GPR.RSP, 64)
        .sub(bits / 8)
        .and(mask),
    );
    x.store(bits, x.call(segmentAddress, SREG.SS, offset, bits / 8, 1), value, "stack");
    setStackPointer(x, mask, offset);
    x.done();
  });
}

function readStackHelper(bits: StackBits): Helper {
  return faultingHelper(`readStack${bits}`, ["i64"], [valueType(bits)], (x, above) => {
    const offset = x.c.let(x.gpr(GPR.RSP, 64).add(above).and(stackMask(x)));
    x.done(x.load(bits, x.call(segmentAddress, SREG.SS, offset, bits / 8, 0), "stack"));
  });
}

const PUSH: { readonly [bits in StackBits]: Helper } = { 16: pushHelper(16), 32: pushHelper(32), 64: pushHelper(64) };
const READ: { readonly [bits in StackBits]: Helper } = {
  16: readStackHelper(16),
  32: readStackHelper(32),
  64: readStackHelper(64),
};

const release = helper("releaseStack", ["i64"], [], (x, bytes) => {
  const mask = stackMask(x);
  setStackPointer(x, mask, x.gpr(GPR.RSP, 64).add(bytes).and(mask));
  x.done();
});

/** Pushes an i32 (16 or 32 bits) or i64. */
export function push(x: Env, bits: StackBits, value: Val, long: boolean): void {
  if (!long) {
    x.invoke(PUSH[bits], value);
    return;
  }
  const pointer = x.c.let(x.gpr(GPR.RSP, 64).sub(bits / 8));
  x.store(bits, pointer, value, "stack");
  x.setGpr(GPR.RSP, 64, pointer);
}

/** Reads what lies `above` bytes over the stack pointer, without releasing it. */
export function readStack(x: Env, bits: StackBits, above: Operand, long: boolean): Val {
  return long ? x.load(bits, x.gpr(GPR.RSP, 64).add(above), "stack") : x.call(READ[bits], above);
}

/** Adds to the stack pointer. */
export function releaseStack(x: Env, bytes: Operand, long: boolean): void {
  if (long) x.setGpr(GPR.RSP, 64, x.gpr(GPR.RSP, 64).add(bytes));
  else x.invoke(release, bytes);
}

/** Pops a value whose destination cannot fault. */
export function pop(x: Env, bits: StackBits, long: boolean): Val {
  const value = readStack(x, bits, 0, long);
  releaseStack(x, bits / 8, long);
  return value;
}
