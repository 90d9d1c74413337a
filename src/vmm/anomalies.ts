// Counts of what guests do wrong or unusually, by source and kind. A guest can cause any number of them, so each costs one look-up, only the
// first few of a kind are logged, and the number of kinds is bounded.

import type { AnomalyLog } from "./bus.ts";

const LOGGED_OF_A_KIND = 3;
const KINDS_MAX = 1000;
const OTHER = "other kinds";

export class Anomalies implements AnomalyLog {
  private readonly counts = new Map<string, number>();
  private readonly log: ((line: string) => void) | undefined;

  /** `log` gets a line for the first few of each kind. */
  constructor(log?: (line: string) => void) {
    this.log = log;
  }

  anomaly(source: string, what: string): void {
    let kind = `${source}: ${what}`;
    let count = this.counts.get(kind);
    if (count === undefined && this.counts.size >= KINDS_MAX) {
      kind = OTHER;
      count = this.counts.get(kind);
    }
    this.counts.set(kind, (count ?? 0) + 1);
    if ((count ?? 0) < LOGGED_OF_A_KIND) this.log?.(kind);
  }

  /** Counts by kind, in the order in which the kinds were first seen. */
  statistics(): { [kind: string]: number } {
    return Object.fromEntries(this.counts);
  }
}
