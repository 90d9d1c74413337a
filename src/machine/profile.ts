// Where a guest spends its instructions: the instruction pointer at the end of each slice that ran to its end, which come after equal numbers of
// instructions or equal times, counted by function.

import { type Symbols, SymbolTable } from "./symbols.ts";

const SHOWN = 50;
const PAGE = 0xfffn;

export class Profile {
  private readonly samples = new Map<bigint, number>();
  private total = 0;

  sample(rip: bigint): void {
    this.samples.set(rip, (this.samples.get(rip) ?? 0) + 1);
    this.total++;
  }

  /** Lines of a share and a function, most frequent first. What has no symbol goes by its page. */
  report(symbols: Symbols): string[] {
    const table = new SymbolTable(symbols);
    const functions = new Map<string, number>();
    for (const [rip, count] of this.samples) {
      const name = table.find(rip) ?? `page ${(rip & ~PAGE).toString(16)}`;
      functions.set(name, (functions.get(name) ?? 0) + count);
    }
    const sorted = [...functions].sort(([, a], [, b]) => b - a);
    const lines = sorted
      .slice(0, SHOWN)
      .map(([name, count]) => `${((count / this.total) * 100).toFixed(2).padStart(6)} %  ${name}`);
    const rest = sorted.slice(SHOWN).reduce((sum, [, count]) => sum + count, 0);
    if (rest > 0)
      lines.push(`${((rest / this.total) * 100).toFixed(2).padStart(6)} %  ${sorted.length - SHOWN} others`);
    return [`${this.total} samples, ${symbols.length} symbols`, ...lines];
  }
}
