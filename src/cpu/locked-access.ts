// Locked read-modify-writes (SDM Vol. 3A 9.1.2): what LOCK and XCHG do to memory, and the processor itself to bits of its tables. Aligned ones are
// atomic instructions of WebAssembly, inline in handlers and regions (atomic-update.ts). Here are the functions for everything else.

import type { Bits, Env } from "../isa/semantics.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, i64, select, type Val } from "../wasm/value.ts";
import { ATOMIC_OPS, type AtomicOp, emitAtomic, narrow } from "./atomic-update.ts";
import { isClosed, sharedWord } from "./code-pages.ts";
import { valueType } from "./env.ts";
import { SHARED, VAR } from "./layout.ts";
import type { AccessChecks, AccessFuncs } from "./memory-access.ts";
import type { PagingFuncs } from "./paging.ts";
import type { LockFuncs } from "./shared-lock.ts";

function apply(c: Code, bits: Bits, code: Val, old: Val, operand: Val, expected: Val): Val {
  const result = c.local(valueType(bits));
  const values: { readonly [name in AtomicOp]: Val } = {
    add: old.add(operand),
    sub: old.sub(operand),
    and: old.and(operand),
    or: old.or(operand),
    xor: old.xor(operand),
    xchg: operand,
    cmpxchg: select(old.eq(expected), operand, old),
    neg: old.neg(),
  };
  c.switch(
    code,
    ATOMIC_OPS.slice(1).map((name, n) => [[n + 1], () => c.set(result, narrow(bits, values[name]))]),
    () => c.set(result, narrow(bits, values.add)),
  );
  return result;
}

export interface LockedFuncs {
  /** (linear, access, ATOMIC_OPS number, operand, expected) -> (status, old value), by width. */
  readonly slowLocked: ReadonlyMap<Bits, FuncRef>;
  /** (linear, expected low and high, new low and high) -> (status, found low and high) at an address that is a multiple of 16. */
  readonly exchange16: FuncRef;
}

export function emitLockedAccess(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  paging: PagingFuncs,
  lock: LockFuncs,
  invalidateRange: FuncRef,
  checks: AccessChecks,
  access: AccessFuncs,
): LockedFuncs {
  /** Code that the write may have hit. */
  const written = (c: Code, x: Env, host: Val, bytes: number): void =>
    c.if(isClosed(x, host), () => c.invoke(invalidateRange, host, bytes), undefined, "unlikely");

  const slowLocked = new Map<Bits, FuncRef>();
  for (const bits of [8, 16, 32, 64] as const) {
    const bytes = bits / 8;
    const type = valueType(bits);
    const params = ["i64", "i32", "i32", type, type] as const;
    const load = access.slowLoad.get(bits) as FuncRef;
    const store = access.slowStore.get(bits) as FuncRef;

    /** Neither aligned nor within eight aligned bytes, or no RAM: a load and a store, which are one only against others of their kind. */
    const underLock = m.func(`splitLocked${bits}`, params, ["i32", type], (c) => {
      const x = env(c);
      const [linear, who, code, operand, expected] = c.params;
      const word = c.let(sharedWord(x, SHARED.SPLIT_LOCK));
      c.st32(x.cpu, 0, x.cpu.ld32(0, VAR.COUNT_SPLIT_LOCKS).add(1), VAR.COUNT_SPLIT_LOCKS);
      c.invoke(lock.take, word);
      // Both pages are written or none is.
      const status = c.local("i32", c.call(access.probeWrite, linear, bytes, who));
      const old = c.local(type, 0);
      c.if(status.eqz(), () => {
        const [loaded, value] = c.callMany(load, [linear, who]);
        c.set(status, loaded);
        c.set(old, value);
        c.if(status.eqz(), () =>
          c.set(status, c.call(store, linear, apply(c, bits, code, old, operand, expected), who)),
        );
      });
      c.invoke(lock.give, word);
      c.results([status, old]);
    });

    const misaligned = m.func(`unalignedLocked${bits}`, params, ["i32", type], (c) => {
      const x = env(c);
      const [linear, who, code, operand, expected] = c.params;
      const inWord = linear
        .wrap()
        .and(7)
        .leU(8 - bytes);
      c.if(inWord, () => {
        const [status, at] = c.callMany(paging.translate, [linear, checks.walkBits(c, x, who, true)]);
        c.if(status.eq(1), () => c.ret(1, 0));
        c.if(status.eqz(), () => {
          const word = c.let(at.and(-8));
          const shift = c.let(at.and(7).shl(3).zx());
          const mask = c.let(i64((1n << BigInt(bits)) - 1n).shl(shift));
          const whole = c.local("i64", c.atomicLoad("i64", x.ram, 8, word));
          const old = c.local(type);
          c.loop((again) => {
            const part = whole.and(mask).shrU(shift);
            c.set(old, bits === 64 ? part : part.wrap());
            const changed = c.let(apply(c, bits, code, old, operand, expected).zx().shl(shift));
            const replacement = c.let(whole.and(mask.not()).or(changed));
            const found = c.let(c.atomicCompareExchange(x.ram, 8, word, whole, replacement));
            const lost = c.let(found.ne(whole));
            c.set(whole, found);
            c.brIf(again, lost);
          });
          written(c, x, at, bytes);
          c.ret(0, old);
        });
      });
      c.returnCall(underLock, ...c.params);
      c.unreachable();
    });

    slowLocked.set(
      bits,
      m.func(`slowLocked${bits}`, params, ["i32", type], (c) => {
        const x = env(c);
        const [linear, who, code, operand, expected] = c.params;
        checks.check(c, x, linear, who, bytes);
        checks.watch(c, x, linear, bytes, who, true);
        if (bytes > 1) c.if(linear.wrap().and(bytes - 1), () => c.returnCall(misaligned, ...c.params));
        const [status, at] = c.callMany(paging.translate, [linear, checks.walkBits(c, x, who, true)]);
        c.if(status.eq(1), () => c.ret(1, 0));
        c.if(status, () => c.returnCall(underLock, ...c.params));
        const old = c.local(type);
        c.switch(
          code,
          ATOMIC_OPS.slice(1).map((name, n) => [[n + 1], () => emitAtomic(x, bits, at, name, operand, expected, old)]),
          () => emitAtomic(x, bits, at, "add", operand, expected, old),
        );
        written(c, x, at, bytes);
        c.results([0, old]);
      }),
    );
  }

  const load64 = access.slowLoad.get(64) as FuncRef;
  const store64 = access.slowStore.get(64) as FuncRef;
  const exchange16 = m.func("exchange16", ["i64", "i64", "i64", "i64", "i64"], ["i32", "i64", "i64"], (c) => {
    const x = env(c);
    const { ram } = x;
    const [linear, expectedLow, expectedHigh, newLow, newHigh] = c.params;
    const data = i32(0);
    checks.check(c, x, linear, data, 16);
    checks.watch(c, x, linear, 16, data, true);
    const [status, at] = c.callMany(paging.translate, [linear, checks.walkBits(c, x, data, true)]);
    c.if(status.eq(1), () => c.ret(1, 0, 0));
    const low = c.local("i64");
    const high = c.local("i64");
    const equal = (): Val => low.eq(expectedLow).and(high.eq(expectedHigh));
    c.if(status, () => {
      const [lowStatus, lowValue] = c.callMany(load64, [linear, data]);
      c.if(lowStatus, () => c.ret(1, 0, 0));
      const [highStatus, highValue] = c.callMany(load64, [linear.add(8), data]);
      c.if(highStatus, () => c.ret(1, 0, 0));
      c.set(low, lowValue);
      c.set(high, highValue);
      c.if(equal(), () => {
        c.if(c.call(store64, linear, newLow, data), () => c.ret(1, 0, 0));
        c.if(c.call(store64, linear.add(8), newHigh, data), () => c.ret(1, 0, 0));
      });
      c.ret(0, low, high);
    });
    const word = c.let(sharedWord(x, SHARED.SPLIT_LOCK));
    c.invoke(lock.take, word);
    c.set(low, c.atomicLoad("i64", ram, 8, at));
    c.set(high, c.atomicLoad("i64", ram, 8, at, 8));
    c.if(equal(), () => {
      // Others may write a half without the lock: nothing of theirs is overwritten.
      c.set(low, c.atomicCompareExchange(ram, 8, at, expectedLow, newLow));
      c.if(low.eq(expectedLow), () => {
        c.set(high, c.atomicCompareExchange(ram, 8, at, expectedHigh, newHigh, 8));
        c.if(high.ne(expectedHigh), () => c.drop(c.atomicCompareExchange(ram, 8, at, newLow, expectedLow)));
      });
    });
    c.invoke(lock.give, word);
    written(c, x, at, 16);
    c.results([0, low, high]);
  });
  return { slowLocked, exchange16 };
}
