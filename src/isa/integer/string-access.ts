// Operands of string instructions: DS:rSI (or an override) and ES:rDI at the address size, stepped by the direction flag
// (SDM Vol. 1 7.3.9; Vol. 2A-2B by name).

import { i64, select, type Val } from "../../wasm/value.ts";
import { addressMask, indexRegister, segmentAddress, setIndexRegister } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { FLAG, GPR, RFLAGS } from "../state.ts";

/** What a round of a string instruction needs to know, fixed for one execution. */
export interface StringRound {
  /** Address size as `Sem.addressSize`, and its mask (i64). */
  readonly size: Val;
  readonly mask: Val;
  readonly bytes: number;
  /** Plus or minus `bytes` by DF, i64. */
  readonly step: Val;
}

export function stringRound(x: Env, addressSize: Val, bytes: number): StringRound {
  const size = x.c.let(addressSize);
  const backwards = x.get(RFLAGS).and(FLAG.DF);
  return {
    size,
    mask: x.c.let(addressMask(size)),
    bytes,
    step: x.c.let(select(backwards, i64(-bytes), i64(bytes))),
  };
}

/** The checked linear address of the operand at an index register. */
export function stringAddress(
  x: Env,
  round: StringRound,
  segment: Val | number,
  register: number,
  write: boolean,
): Val {
  const offset = indexRegister(x, register, round.mask);
  return x.call(segmentAddress, segment, offset, round.bytes, write ? 1 : 0);
}

/** Moves an index register one element on. */
export function stepIndex(x: Env, round: StringRound, register: number): void {
  setIndexRegister(x, register, round.size, x.gpr(register, 64).add(round.step));
}

/** The rounds left: rCX at the address size. */
export function repeatCount(x: Env, round: StringRound): Val {
  return indexRegister(x, GPR.RCX, round.mask);
}

/** Takes rounds off the count, after they have completed. */
export function countDown(x: Env, round: StringRound, rounds: Val): void {
  setIndexRegister(x, GPR.RCX, round.size, x.gpr(GPR.RCX, 64).sub(rounds));
}

/** Rounds (or pages) in one go before interrupts get a chance; one where each round traps (TF). */
export function roundBudget(x: Env, rounds: number): Val {
  return select(x.get(RFLAGS).and(FLAG.TF), i64(1), i64(rounds)).wrap();
}
