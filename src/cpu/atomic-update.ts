// The read-modify-writes that are atomic instructions of WebAssembly: what LOCK and XCHG do to aligned operands in guest RAM.

import type { AtomicUpdate, Bits, Env } from "../isa/semantics.ts";
import type { Local } from "../wasm/code.ts";
import { constantOf, type Val } from "../wasm/value.ts";

export const ATOMIC_OPS = ["add", "sub", "and", "or", "xor", "xchg", "cmpxchg", "neg"] as const;
export type AtomicOp = AtomicUpdate["op"];

export function atomicCode(name: AtomicOp): number {
  return ATOMIC_OPS.indexOf(name);
}

/** Operand and expected value, zero where the operation has none. */
export function atomicOperands(update: AtomicUpdate, bits: Bits): readonly [operand: Val, expected: Val] {
  const zero = constantOf(bits === 64 ? "i64" : "i32", 0);
  return ["operand" in update ? update.operand : zero, "expected" in update ? update.expected : zero];
}

/** The atomic access to guest RAM at an aligned host offset; sets `old`. */
export function emitAtomic(
  x: Env,
  bits: Bits,
  host: Val,
  name: AtomicOp,
  operand: Val,
  expected: Val,
  old: Local,
): void {
  const { c, ram } = x;
  const bytes = bits / 8;
  if (name === "cmpxchg") c.set(old, c.atomicCompareExchange(ram, bytes, host, expected, operand));
  else if (name === "neg") {
    c.set(old, c.atomicLoad(old.type, ram, bytes, host));
    c.loop((again) => {
      const found = c.let(c.atomicCompareExchange(ram, bytes, host, old, narrow(bits, old.neg())));
      const lost = c.let(found.ne(old));
      c.set(old, found);
      c.brIf(again, lost);
    });
  } else c.set(old, c.atomicRmw(name, ram, bytes, host, operand));
}

/** The significant bits of a value, zero-extended in its own type. */
export function narrow(bits: Bits, value: Val): Val {
  return bits >= 32 ? value : value.and(bits === 8 ? 0xff : 0xffff);
}
