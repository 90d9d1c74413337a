// Pages of guest RAM from which some vCPU has decoded code. What all vCPUs know about a page lies beside guest RAM (PAGE_WORDS). Decoded code is
// private to a vCPU, and so are the write tables of its TLB, through which stores go that nobody else hears of.
//
// A page is open, closed (no write table takes it in any more) or sealed (none has it). Code is kept from sealed pages only. A store to one that
// is closed or sealed goes the slow way: it is counted, and where it hits a marked place everybody's code of that page is dropped and the page
// opened. docs/architecture.md, "Code that changes", says why nothing is lost whatever the order.

import type { Env } from "../isa/semantics.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, i64, type Val } from "../wasm/value.ts";
import { PAGE_STATE, PAGE_WORDS, SHARED, SHARED_WORDS, VAR } from "./layout.ts";
import { type LockFuncs, withLock } from "./shared-lock.ts";

/** Address of the words of the page of a host offset. */
export function pageWords(x: Env, host: Val): Val {
  return host.shrU(12).mul(PAGE_WORDS.SIZE).add(x.cpu.ld32(0, VAR.CODE_MAP));
}

/** Not zero where stores to the page must go the slow way. */
export function isClosed(x: Env, host: Val): Val {
  return x.ram.ld32(pageWords(x, host), PAGE_WORDS.STATE).and(PAGE_STATE.CLOSED);
}

/** Bits of PAGE_WORDS.CODE for the bytes from one host offset to another in the same page. */
export function codeBits(first: Val, last: Val): Val {
  return i64(-1)
    .shl(first.bits(6, 6).zx())
    .and(i64(-1).shrU(i32(63).sub(last.bits(6, 6)).zx()));
}

/** Address of a word that all vCPUs share. */
export function sharedWord(x: Env, offset: number): Val {
  return x.cpu.ld32(0, VAR.CODE_MAP).sub(SHARED_WORDS - offset);
}

/** STATE and STORES of a page in one. */
export function pageVersion(x: Env, words: Val): Val {
  return x.c.atomicLoad("i64", x.ram, 8, words, PAGE_WORDS.STATE);
}

export function isSealed(version: Val): Val {
  return version.wrap().and(PAGE_STATE.SEALED);
}

/** (host address, bytes): stored there, in one page that is closed. Drops code that was made of it, here and at the other vCPUs. */
export function emitInvalidateRange(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  lock: LockFuncs,
  invalidatePage: FuncRef,
  codeWritten: FuncRef,
): FuncRef {
  return m.func("invalidateRange", ["i32", "i32"], [], (c) => {
    const x = env(c);
    const { ram } = x;
    const [host, bytes] = c.params;
    const words = c.let(pageWords(x, host));
    const bits = c.let(codeBits(host, host.add(bytes).sub(1)));
    const isHit = (): Val => c.atomicLoad("i64", ram, 8, words, PAGE_WORDS.CODE).and(bits).ne(0n);
    c.drop(c.atomicRmw("add", ram, 4, words, i32(1), PAGE_WORDS.STORES));
    c.if(isHit(), () => {
      c.invoke(invalidatePage, host.and(-4096));
      const word = c.let(sharedWord(x, SHARED.PAGE_LOCK));
      c.invoke(lock.take, word);
      c.if(isHit(), () => {
        const state = c.atomicLoad("i32", ram, 4, words, PAGE_WORDS.STATE);
        // From here on nobody keeps code of the page; then everybody is told; only then may stores pass unseen.
        const unsealed = c.let(state.and(~PAGE_STATE.SEALED).add(PAGE_STATE.OPENED));
        c.atomicStore(ram, 4, words, unsealed, PAGE_WORDS.STATE);
        c.invoke(codeWritten, host, bytes);
        c.atomicStore(ram, 8, words, i64(0), PAGE_WORDS.CODE);
        c.atomicStore(ram, 4, words, unsealed.and(~PAGE_STATE.CLOSED), PAGE_WORDS.STATE);
      });
      c.invoke(lock.give, word);
    });
  });
}

/** (host page): tries to make the page sealed. Where stores have opened it meanwhile it is not, and the caller sees that. */
export function emitSeal(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  lock: LockFuncs,
  protectPage: FuncRef,
  hostProtectPage: FuncRef,
): FuncRef {
  return m.func("sealPage", ["i32"], [], (c) => {
    const x = env(c);
    const { ram } = x;
    const [page] = c.params;
    const words = c.let(pageWords(x, page));
    const state = (): Val => c.atomicLoad("i32", ram, 4, words, PAGE_WORDS.STATE);
    c.if(state().and(PAGE_STATE.SEALED), () => c.ret(), undefined, "likely");
    const word = c.let(sharedWord(x, SHARED.PAGE_LOCK));
    c.invoke(lock.take, word);
    const closed = c.let(state().or(PAGE_STATE.CLOSED));
    c.atomicStore(ram, 4, words, closed, PAGE_WORDS.STATE);
    c.invoke(lock.give, word);
    c.if(closed.and(PAGE_STATE.SEALED), () => c.ret());
    c.invoke(protectPage, page);
    c.invoke(hostProtectPage, page);
    c.invoke(lock.take, word);
    c.if(state().eq(closed), () => c.atomicStore(ram, 4, words, closed.or(PAGE_STATE.SEALED), PAGE_WORDS.STATE));
    c.invoke(lock.give, word);
  });
}

/** The same words for a thread that writes guest RAM without being a vCPU. */
export class CodePages {
  private readonly words: Int32Array;
  private readonly code: BigInt64Array;
  private readonly shared: Int32Array;

  /** `codeMap`: offset of the page words in the memory of guest RAM (`codeMapOffset` in engine.ts). */
  constructor(ram: WebAssembly.Memory, codeMap: number) {
    this.words = new Int32Array(ram.buffer, codeMap);
    this.code = new BigInt64Array(ram.buffer, codeMap);
    this.shared = new Int32Array(ram.buffer, codeMap - SHARED_WORDS, SHARED_WORDS / 4);
  }

  /** Whether stores to a page must be told of. */
  isClosed(host: number): boolean {
    const at = Math.floor(host / 4096) * (PAGE_WORDS.SIZE / 4);
    return (Atomics.load(this.words, at + PAGE_WORDS.STATE / 4) & PAGE_STATE.CLOSED) !== 0;
  }

  /** To be called after bytes were written. `drop` tells every vCPU that code of a range, which lies in one page, is no more; it must not wait. */
  written(host: number, length: number, drop: (host: number, length: number) => void): void {
    for (let at = host; at < host + length; ) {
      const end = Math.min(host + length, Math.floor(at / 4096) * 4096 + 4096);
      if (this.isClosed(at)) this.writtenInPage(at, end - at, drop);
      at = end;
    }
  }

  private writtenInPage(host: number, length: number, drop: (host: number, length: number) => void): void {
    const { words, code } = this;
    const page = Math.floor(host / 4096);
    const at = page * (PAGE_WORDS.SIZE / 4);
    const first = BigInt((host % 4096) >> 6);
    const last = BigInt(((host % 4096) + length - 1) >> 6);
    const bits = BigInt.asIntN(64, (1n << (last + 1n)) - (1n << first));
    const isHit = (): boolean => (Atomics.load(code, page * (PAGE_WORDS.SIZE / 8)) & bits) !== 0n;
    Atomics.add(words, at + PAGE_WORDS.STORES / 4, 1);
    if (!isHit()) return;
    withLock(this.shared, SHARED.PAGE_LOCK / 4, () => {
      if (!isHit()) return;
      const state = Atomics.load(words, at + PAGE_WORDS.STATE / 4);
      const unsealed = ((state & ~PAGE_STATE.SEALED) + PAGE_STATE.OPENED) | 0;
      Atomics.store(words, at + PAGE_WORDS.STATE / 4, unsealed);
      drop(host, length);
      Atomics.store(code, page * (PAGE_WORDS.SIZE / 8), 0n);
      Atomics.store(words, at + PAGE_WORDS.STATE / 4, unsealed & ~PAGE_STATE.CLOSED);
    });
  }
}
