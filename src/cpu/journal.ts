// Notes what every store to guest RAM overwrites, in engine modules that are built to (src/cpu/translator/check.ts).

import type { Code } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { FuncRef, FuncType, ModuleBuilder } from "../wasm/module.ts";
import type { Operand, Val } from "../wasm/value.ts";
import { JOURNAL_END, JOURNAL_ENTRY_MAX, VAR } from "./layout.ts";

/** Export of the engine modules that have a journal. */
export const JOURNAL_EXPORT = "journal";
export const JOURNAL_TYPE: FuncType = { params: ["i32", "i32"], results: [] };

/** Stores to a memory call the journal's function first. */
export function watchStores(ram: Memory, journal: () => FuncRef): void {
  ram.watch = (c: Code, address: Val, bytes: Operand) => c.invoke(journal(), address, bytes);
}

export function emitJournal(m: ModuleBuilder, cpu: Memory, ram: Memory): void {
  const journal = m.func(JOURNAL_EXPORT, JOURNAL_TYPE.params, JOURNAL_TYPE.results, (c) => {
    const [address, bytes] = c.params;
    const next = c.let(cpu.ld32(0, VAR.JOURNAL_NEXT));
    c.if(next.eqz(), () => c.ret());
    c.if(bytes.gtU(JOURNAL_ENTRY_MAX).or(next.gtU(JOURNAL_END - JOURNAL_ENTRY_MAX - 16)), () => {
      // Full: whoever reads the journal cannot take anything back.
      c.st32(cpu, 0, JOURNAL_END, VAR.JOURNAL_NEXT);
      c.ret();
    });
    c.st32(cpu, next, address);
    c.st32(cpu, next, bytes, 4);
    c.memoryCopy(cpu, next.add(8), ram, address, bytes);
    c.st32(cpu, 0, next.add(bytes.add(15).and(-8)), VAR.JOURNAL_NEXT);
  });
  m.exportFunc(JOURNAL_EXPORT, journal);
  watchStores(ram, () => journal);
}
