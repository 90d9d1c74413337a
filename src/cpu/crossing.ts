// Accesses that cross a page: both pages are looked up, then the bytes go by a place in the vCPU's own memory, where they are one value.

import type { Env } from "../isa/semantics.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, select, type Val } from "../wasm/value.ts";
import { isClosed } from "./code-pages.ts";
import { CROSSING, VAR } from "./layout.ts";
import { WALK } from "./paging.ts";

export function crossesPage(linear: Val, bytes: number | Val): Val {
  return linear.wrap().and(0xfff).gtU(i32(0x1000).sub(bytes));
}

/** The first byte of the page behind. */
export function secondPage(linear: Val): Val {
  return linear.and(-4096n).add(4096n);
}

/** (linear, WALK bits) -> (status, host) as `PagingFuncs.translate`, by the TLB in use where it knows the page. */
export function emitReach(m: ModuleBuilder, env: (c: Code) => Env, translate: FuncRef): FuncRef {
  return m.func("reach", ["i64", "i32"], ["i32", "i32"], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [linear, bits] = c.params;
    const table = cpu.ld32(select(bits.and(WALK.WRITE), i32(VAR.TLB_WRITE), VAR.TLB_READ));
    const found = c.let(cpu.ld64(linear.shrU(9).wrap().and(cpu.ld32(0, VAR.TLB_INDEX_MASK)).add(table)).xor(linear));
    c.if(found.and(cpu.ld64(0, VAR.TLB_MASK)).eqz(), () => c.ret(0, found.wrap()), undefined, "likely");
    c.returnCall(translate, linear, bits);
    c.unreachable();
  });
}

/** Runs `move` for each byte: where it lies at CROSSING, and in the memory of guest RAM, whose pages lie at two host offsets. */
function eachByte(c: Code, linear: Val, bytes: number, pages: readonly [Val, Val], move: (at: Val, host: Val) => void) {
  const at = c.local("i32", 0);
  const inFirst = c.let(i32(0x1000).sub(linear.wrap().and(0xfff)));
  const [first, second] = pages;
  const beyond = c.let(second.sub(inFirst));
  c.loop((head) => {
    move(at, select(at.ltU(inFirst), first, beyond).add(at));
    c.set(at, at.add(1));
    c.brIf(head, at.ltU(bytes));
  });
}

/** Brings the bytes of a load to CROSSING. */
export function gather(x: Env, linear: Val, bytes: number, pages: readonly [Val, Val]): void {
  eachByte(x.c, linear, bytes, pages, (at, host) => x.c.st8(x.cpu, at, x.ram.ld8u(host), CROSSING));
}

/** Stores the bytes at CROSSING. */
export function scatter(x: Env, linear: Val, bytes: number, pages: readonly [Val, Val]): void {
  eachByte(x.c, linear, bytes, pages, (at, host) => x.c.st8(x.ram, host, x.cpu.ld8u(at, CROSSING)));
}

/** Whether stores to both pages need no look at code. */
export function bothOpen(x: Env, [first, second]: readonly [Val, Val]): Val {
  return isClosed(x, first).or(isClosed(x, second)).eqz();
}
