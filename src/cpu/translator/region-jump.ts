// How a region ends in a jump: it enters the target's region where the jump cache knows one, as the last thing it does.

import { RIP_BASE, SHADOW } from "../../isa/state.ts";
import type { Code } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import type { FuncType, TableRef } from "../../wasm/module.ts";
import type { Val } from "../../wasm/value.ts";
import { PSEUDO } from "../decoder.ts";
import { BLOCK, JUMP_CACHE, RECORD, VAR } from "../layout.ts";
import { jumpCacheSlot, jumpTag } from "../tlb.ts";

/** Type of handlers and regions: (record) -> status. */
export const HANDLER_TYPE: FuncType = { params: ["i32"], results: ["i32"] };

/** Whether the jump cache knows a block at a linear address, by its slot. */
export function isCached(cpu: Memory, slot: Val, linear: Val): Val {
  return cpu
    .ld64(slot, JUMP_CACHE)
    .eq(linear)
    .and(cpu.ld32(slot, JUMP_CACHE + 12).eq(jumpTag(cpu, linear)));
}

/** Goes on in the region of a jump's target. Where the target's block is known and has none, `enter` gets its record; else nothing happens. */
export function emitGoOn(c: Code, cpu: Memory, table: TableRef, target: Val, enter: (record: Val) => void): void {
  const slot = c.let(jumpCacheSlot(target));
  const budget = c.let(cpu.ld32(0, VAR.BUDGET));
  c.if(
    isCached(cpu, slot, target).and(budget.gtS(cpu.ld32(0, VAR.LIMIT))),
    () => {
      const record = c.let(cpu.ld32(slot, JUMP_CACHE + 8));
      c.st64(cpu, 0, target.and(-4096n), RIP_BASE.offset);
      c.if(
        cpu.ld16u(record, RECORD.HANDLER).eq(PSEUDO.ENTER_REGION),
        () => {
          const header = record.sub(BLOCK.SIZE);
          c.st32(cpu, 0, budget.sub(cpu.ld32(header, BLOCK.COUNT)), VAR.BUDGET);
          // The interrupt shadow of STI holds for one instruction: there is no poll before it.
          c.st32(cpu, 0, 0, SHADOW.offset);
          c.returnCallIndirect(table, HANDLER_TYPE, cpu.ld32(header, BLOCK.REGION), [record]);
        },
        undefined,
        "likely",
      );
      c.if(cpu.ld32(0, SHADOW.offset).eqz(), () => enter(record));
    },
    undefined,
    "likely",
  );
}
