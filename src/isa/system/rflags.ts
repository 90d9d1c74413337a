// Writing RFLAGS as a whole: POPF, IRET, SYSRET, STI and CLI, task switches (SDM Vol. 2B POPF; Vol. 1 3.4.3).

import { i32, type Operand, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { ARITHMETIC_FLAGS, CPL, CR4, CR4_BIT, FLAG, RFLAGS, VECTOR } from "../state.ts";
import { iopl, isProtected, isVirtual8086 } from "./modes.ts";

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

/**
 * POPF: takes over what the mode and privilege allow from an image of 16, 32 or 64 bits (i32 holds all that exist). Calls `updateMode`
 * where needed. The instruction pops first (the load faults before anything changes), then calls this, then writes RSP and ends its block.
 * In virtual-8086 mode with IOPL below 3 it raises #GP(0), or writes VIF where CR4.VME allows (SDM Vol. 3B 20.3.3).
 */
export const popRflags = faultingHelper("popRflags", ["i32", "i32"], [], (x, image, bits) => {
  const { c } = x;
  const old = c.let(x.get(RFLAGS));
  const narrow = c.let(bits.eq(16));
  c.if(
    isVirtual8086(x),
    () => {
      c.if(iopl(x).ltU(3), () => {
        x.raiseIf(x.get(CR4).and(CR4_BIT.VME).eqz().or(narrow.eqz()), VECTOR.GP, 0);
        const pending = old.and(FLAG.VIP).ne(0);
        x.raiseIf(image.and(FLAG.IF).ne(0).and(pending).or(image.and(FLAG.TF).ne(0)), VECTOR.GP, 0);
        const virtual = c.let(image.and(FLAG.IF).shl(10).or(image.and(~FLAG.VIF)));
        setRflags(x, virtual, ARITHMETIC_FLAGS | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.VIF);
        c.if(old.and(FLAG.TF), () => x.invoke(updateMode));
        x.done();
      });
    },
    undefined,
    "unlikely",
  );
  const mask = c.let(writableFlags(x).or(FLAG.RF));
  // RF is cleared, never taken from the stack.
  setRflags(x, image.and(~FLAG.RF), select(narrow, mask.and(0xffff), mask));
  c.if(old.xor(x.get(RFLAGS)).and(MODE_FLAGS), () => x.invoke(updateMode));
  x.done();
});

/** STI and CLI without privilege in protected mode or with VME: whether VIF stands in for IF (SDM Vol. 3B 20.3, 20.4). */
export function usesVirtualInterruptFlag(x: Env): Val {
  const virtual = x.c.let(isVirtual8086(x).ne(0));
  const enabled = select(virtual, x.get(CR4).and(CR4_BIT.VME), x.get(CR4).and(CR4_BIT.PVI)).ne(0);
  return enabled
    .and(isProtected(x).ne(0))
    .and(virtual.or(x.get(CPL).eq(3)))
    .and(iopl(x).ltU(3));
}
