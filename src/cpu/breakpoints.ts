// Breakpoints of the debug registers (SDM Vol. 3B 17.2.4, 17.2.5, 17.3.1). While any is enabled, instructions run one by one and no access
// goes by the TLB, so that each can be compared; nothing else pays for them.

import type { Env } from "../isa/semantics.ts";
import { DEBUG_TRAPS, DR, DR7 } from "../isa/state.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i64, select, type Val } from "../wasm/value.ts";

/** R/W fields of DR7. */
const ON = { EXECUTION: 0, WRITE: 1, ACCESS: 3 } as const;

/** Not zero where a local or global enable bit is set. */
export function breakpointsEnabled(x: Env): Val {
  return x.get(DR7).and(0xff);
}

function enabled(x: Env, n: number): Val {
  return x
    .get(DR7)
    .shrU(2 * n)
    .and(3)
    .ne(0);
}

function kind(x: Env, n: number): Val {
  return x.get(DR7).bits(16 + 4 * n, 2);
}

/** (linear address of an instruction) -> DR6 bits of the breakpoints on it. */
export function emitInstructionBreakpoints(m: ModuleBuilder, env: (c: Code) => Env): FuncRef {
  return m.func("instructionBreakpoints", ["i64"], ["i32"], (c) => {
    const x = env(c);
    const [linear] = c.params;
    const hits = c.local("i32", 0);
    DR.forEach((address, n) => {
      const hit = enabled(x, n).and(kind(x, n).eq(ON.EXECUTION)).and(x.get(address).eq(linear));
      c.set(hits, hits.or(hit.shl(n)));
    });
    c.results([hits]);
  });
}

/** (linear, bytes, write): notes the data breakpoints that an access hits, for the trap behind its instruction. */
export function emitDataBreakpoints(m: ModuleBuilder, env: (c: Code) => Env): FuncRef {
  return m.func("dataBreakpoints", ["i64", "i32", "i32"], [], (c) => {
    const x = env(c);
    const [linear, bytes, write] = c.params;
    DR.forEach((address, n) => {
      // LEN: 1, 2, 8 and 4 bytes by its code; the address counts from its multiple.
      const code = c.let(x.get(DR7).bits(18 + 4 * n, 2));
      const length = c.let(select(code.eq(2), i64(8), code.zx().add(1n)));
      const start = c.let(x.get(address).and(length.sub(1n).not()));
      const overlaps = start.ltU(linear.add(bytes.zx())).and(linear.ltU(start.add(length)));
      const watched = kind(x, n)
        .eq(ON.ACCESS)
        .or(kind(x, n).eq(ON.WRITE).and(write.ne(0)));
      c.if(enabled(x, n).and(watched).and(overlaps), () => x.put(DEBUG_TRAPS, x.get(DEBUG_TRAPS).or(1 << n)));
    });
  });
}
