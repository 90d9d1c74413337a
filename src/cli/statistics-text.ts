// Counters as text.

import type { MachineStatistics } from "../index.ts";

/** Counters as lines of a path and a number. */
export function statisticsText(statistics: MachineStatistics): string {
  const lines: string[] = [];
  const list = (path: string, value: unknown): void => {
    if (typeof value !== "object" || value === null) {
      lines.push(`${path} ${value}`);
      return;
    }
    for (const [name, inner] of Object.entries(value)) {
      const last = Array.isArray(value) ? `[${name}]` : path === "" ? name : `.${name}`;
      list(path + last, inner);
    }
  };
  list("", statistics);
  return lines.join("\n");
}
