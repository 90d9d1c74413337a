// Writing RFLAGS as a whole: IRET, SYSCALL, SYSRET, task switches (SDM Vol. 1 3.4.3; Vol. 2A IRET).

import { i32, type Operand, select, type Val } from "../../wasm/value.ts";
import type { Env } from "../semantics.ts";
import { ARITHMETIC_FLAGS, CPL, FLAG, RFLAGS } from "../state.ts";
import { iopl } from "./modes.ts";

/** Bits of RFLAGS that exist; the others read as zero, but for bit 1. */
export const RFLAGS_BITS =
  ARITHMETIC_FLAGS |
  FLAG.TF |
  FLAG.IF |
  FLAG.DF |
  FLAG.IOPL |
  FLAG.NT |
  FLAG.RF |
  FLAG.VM |
  FLAG.AC |
  FLAG.VIF |
  FLAG.VIP |
  FLAG.ID;

/** Flags that code at any privilege level may set with POPF and IRET. */
export const USER_FLAGS = ARITHMETIC_FLAGS | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.AC | FLAG.ID;

/** Flags whose change alters how code runs, so that `updateMode` must hear of it. */
export const MODE_FLAGS = FLAG.TF | FLAG.AC | FLAG.VM;

/** Takes over the bits in `mask`, keeps the others. The mask holds all arithmetic flags. The caller sees to `updateMode`. */
export function setRflags(x: Env, image: Val, mask: Operand): void {
  const { c } = x;
  const value = c.let(image);
  const taken = typeof mask === "number" ? mask & ~ARITHMETIC_FLAGS : (mask as Val).and(~ARITHMETIC_FLAGS);
  const inverted = typeof taken === "number" ? ~taken : taken.not();
  x.put(RFLAGS, x.get(RFLAGS).and(inverted).or(value.and(taken)).or(2));
  x.setArithmeticFlags(value.and(ARITHMETIC_FLAGS));
}

/** The bits that POPF and IRET may change at the present CPL and IOPL, without VM, VIF, VIP and RF. */
export function writableFlags(x: Env): Val {
  const ring0 = select(x.get(CPL).eqz(), i32(FLAG.IOPL), 0);
  const interrupts = select(x.get(CPL).leU(iopl(x)), i32(FLAG.IF), 0);
  return ring0.or(interrupts).or(USER_FLAGS);
}
