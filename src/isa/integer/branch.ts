// Near branches (SDM Vol. 2A-2D: CALL, JMP, Jcc, LOOP, RET). In 64-bit mode their operand size is always 64 bits (Vol. 1 6.3.7).

import type { Val } from "../../wasm/value.ts";
import type { InstructionGroup } from "../instruction.ts";
import { addressMask, checkTarget, indexRegister, notCanonical, setIndexRegister } from "../segmentation.ts";
import type { Sem } from "../semantics.ts";
import { GPR, VECTOR } from "../state.ts";
import { push, readStack, releaseStack, type StackBits } from "./stack-access.ts";

function size(x: Sem): StackBits {
  return x.opsize as StackBits;
}

/** An instruction pointer cut to the operand size. */
function cut(x: Sem, rip: Val): Val {
  if (x.opsize === 16) return rip.and(0xffff);
  return x.opsize === 32 ? rip.and(0xffffffffn) : rip;
}

/** Raises what a jump to the target would raise, before the stack changes. */
function check(x: Sem, target: Val): void {
  if (x.long) x.raiseIf(notCanonical(target), VECTOR.GP, 0);
  else x.invoke(checkTarget, target);
}

function pushReturn(x: Sem): void {
  push(x, size(x), x.opsize === 64 ? x.nextRip() : x.nextRip().wrap(), x.long);
}

/** Pops the return address and releases `extra` bytes of parameters (i64 or nothing). */
function returnNear(x: Sem, extra?: Val): void {
  const target = x.c.let(readStack(x, size(x), 0, x.long).zx());
  check(x, target);
  const bytes = x.opsize / 8;
  releaseStack(x, extra === undefined ? bytes : extra.add(bytes), x.long);
  x.jumpTo(target);
}

/** LOOP and its relatives: the counter has the address size; `also` narrows when to jump. */
function loop(also: (x: Sem) => Val | undefined): (x: Sem) => void {
  return (x) => {
    const addressSize = x.c.let(x.addressSize());
    const mask = x.c.let(addressMask(addressSize));
    const count = x.c.let(indexRegister(x, GPR.RCX, mask).sub(1).and(mask));
    setIndexRegister(x, GPR.RCX, addressSize, count);
    const zero = also(x);
    x.jumpRelative(x.c.let(zero === undefined ? count.ne(0) : count.ne(0).and(zero)));
  };
}

export const BRANCH: InstructionGroup = [
  {
    name: "Jcc",
    rows: ["70+cc: Jb ; f64 end", "0F 80+cc: Jz ; f64 end"],
    reads: "OSZPC",
    hot: true,
    semantics: (x) => x.jumpRelative(x.condition(x.opcode & 15)),
  },
  {
    name: "JMP",
    rows: ["EB: Jb ; f64 end", "E9: Jz ; f64 end"],
    hot: true,
    semantics: (x) => x.jumpRelative(),
  },
  {
    name: "JMP",
    rows: ["FF /4: Ev ; f64 end"],
    hot: true,
    semantics: (x) => {
      const target = x.c.let(x.read(0).zx());
      check(x, target);
      x.jumpTo(target);
    },
  },
  {
    name: "CALL",
    rows: ["E8: Jz ; f64 stack end"],
    hot: true,
    semantics: (x) => {
      if (x.long) {
        pushReturn(x);
        x.jumpRelative();
        return;
      }
      const target = x.c.let(cut(x, x.nextRip().add(x.immediate().sx())));
      check(x, target);
      pushReturn(x);
      x.jumpTo(target);
    },
  },
  {
    name: "CALL",
    rows: ["FF /2: Ev ; f64 stack end"],
    hot: true,
    semantics: (x) => {
      const target = x.c.let(x.read(0).zx());
      check(x, target);
      pushReturn(x);
      x.jumpTo(target);
    },
  },
  { name: "RET", rows: ["C3 ; f64 stack end"], hot: true, semantics: (x) => returnNear(x) },
  { name: "RET", rows: ["C2: Iw ; f64 stack end"], semantics: (x) => returnNear(x, x.read(0).and(0xffff).zx()) },
  {
    name: "JCXZ",
    rows: ["E3: Jb ; f64 end"],
    semantics: (x) => x.jumpRelative(x.c.let(indexRegister(x, GPR.RCX, addressMask(x.c.let(x.addressSize()))).eqz())),
  },
  { name: "LOOP", rows: ["E2: Jb ; f64 end"], semantics: loop(() => undefined) },
  { name: "LOOPE", rows: ["E1: Jb ; f64 end"], reads: "Z", semantics: loop((x) => x.condition(4)) },
  { name: "LOOPNE", rows: ["E0: Jb ; f64 end"], reads: "Z", semantics: loop((x) => x.condition(5)) },
];
