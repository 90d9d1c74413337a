// A lock word in the memory of guest RAM, taken by vCPUs in WebAssembly and by other threads in JavaScript. Held for some stores at most, never
// while waiting for somebody. 0: free, 1: taken, 2: taken, and somebody sleeps until it is free.

import type { Code } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32 } from "../wasm/value.ts";

/** Rounds of looking before sleeping: the holder is on another CPU and about to be done, or has none. */
const SPINS = 200;
const SLEEP_NS = 1_000_000n;

export interface LockFuncs {
  /** (address of the word). */
  readonly take: FuncRef;
  readonly give: FuncRef;
}

export function emitLock(m: ModuleBuilder, ram: Memory): LockFuncs {
  const isFree = (c: Code) => c.atomicCompareExchange(ram, 4, c.params[0], i32(0), i32(1)).eqz();
  const take = m.func("takeLock", ["i32"], [], (c) => {
    const left = c.local("i32", SPINS);
    c.loop((head) => {
      c.if(isFree(c), () => c.ret(), undefined, "likely");
      c.set(left, left.sub(1));
      c.brIf(head, left);
    });
    c.loop((head) => {
      c.if(c.atomicRmw("xchg", ram, 4, c.params[0], i32(2)).eqz(), () => c.ret());
      c.atomicWait32(ram, c.params[0], 2, SLEEP_NS);
      c.br(head);
    });
  });
  const give = m.func("giveLock", ["i32"], [], (c) => {
    c.if(
      c.atomicRmw("xchg", ram, 4, c.params[0], i32(0)).eq(2),
      () => c.atomicNotify(ram, c.params[0], 1),
      undefined,
      "unlikely",
    );
  });
  return { take, give };
}

/** The same from JavaScript. */
export function withLock(words: Int32Array, index: number, body: () => void): void {
  for (let left = SPINS; ; left--) {
    if (left > 0 ? Atomics.compareExchange(words, index, 0, 1) === 0 : Atomics.exchange(words, index, 2) === 0) break;
    if (left <= 0) Atomics.wait(words, index, 2, Number(SLEEP_NS) / 1e6);
  }
  try {
    body();
  } finally {
    if (Atomics.exchange(words, index, 0) === 2) Atomics.notify(words, index, 1);
  }
}
