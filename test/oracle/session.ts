// One session: cases of a list of plans in turn, in batches, through the host and the engine.

import { describe, differences, resultLength } from "./compare.ts";
import { EngineRunner, REHEARSED } from "./engine-runner.ts";
import { generate } from "./generate.ts";
import { HostRunner } from "./host-runner.ts";
import type { Plan } from "./plan.ts";
import { Random } from "./random.ts";
import { AREA_BYTES, REQUEST, RESULT } from "./record.ts";

const BATCH = 2048;
/** 16-bit cases come in every so many rounds only: Linux takes 20 times as long to enter a segment of an LDT's stack. */
export const NARROW_EVERY = 8;

export interface Tally {
  cases: number;
  differing: number;
}

export interface Outcome {
  cases: number;
  differing: number;
  /** The first few differences of each instruction, as text. */
  readonly reports: string[];
  readonly byInstruction: Map<string, Tally>;
  /** How often each known difference (differences.ts) explained a field. */
  readonly known: Map<string, number>;
}

export interface SessionOptions {
  readonly plans: readonly Plan[];
  /** Rounds over all plans: case n of plan p has its own seed, whatever else runs. */
  readonly rounds: number;
  readonly firstRound?: number;
  readonly seed?: number;
  /** Reports kept for each instruction. */
  readonly reportsEach?: number;
  /** Cases run translated. */
  readonly translated?: boolean;
  readonly until?: () => boolean;
  readonly progress?: (outcome: Outcome) => void;
}

/** Seed of one case. */
function seedOf(seed: number, plan: number, round: number): number {
  return (Math.imul(plan + 1, 0x9e3779b1) ^ Math.imul(round + 1, 0x85ebca6b) ^ Math.imul(seed, 0xc2b2ae35)) >>> 0;
}

export async function runSession(options: SessionOptions): Promise<Outcome> {
  const { plans, rounds, firstRound = 0, seed = 1, reportsEach = 2, until, progress, translated = false } = options;
  const outcome: Outcome = { cases: 0, differing: 0, reports: [], byInstruction: new Map(), known: new Map() };
  const host = new HostRunner();
  const narrow = await host.has16BitCode();
  const engine = new EngineRunner(translated);
  const requests = new Uint8Array(BATCH * REQUEST.BYTES);
  const out = new Uint8Array(RESULT.HEAD + 2 * AREA_BYTES);
  const batch: { plan: Plan; seed: number }[] = [];

  const flush = async (): Promise<void> => {
    const results = await host.run(requests, batch.length);
    let at = 0;
    const requestOf = (n: number): Uint8Array => requests.subarray(n * REQUEST.BYTES, (n + 1) * REQUEST.BYTES);
    batch.forEach(({ plan, seed: caseSeed }, n) => {
      if (n % REHEARSED === 0) {
        const together = Math.min(REHEARSED, batch.length - n);
        engine.rehearse(Array.from({ length: together }, (_, k) => requestOf(n + k)));
      }
      const length = resultLength(results, at);
      const expected = results.subarray(at, at + length);
      at += length;
      const request = requestOf(n);
      const got = out.subarray(0, engine.run(request, out, n % REHEARSED));
      const found = differences(plan, request, expected, got, (why) => {
        outcome.known.set(why, (outcome.known.get(why) ?? 0) + 1);
      });
      const name = plan.row.instruction.name;
      const tally = outcome.byInstruction.get(name) ?? { cases: 0, differing: 0 };
      outcome.byInstruction.set(name, tally);
      tally.cases++;
      outcome.cases++;
      if (found.length === 0) return;
      if (tally.differing++ < reportsEach) outcome.reports.push(describe(plan, String(caseSeed), request, found));
      outcome.differing++;
    });
    batch.length = 0;
    progress?.(outcome);
  };

  try {
    for (let round = firstRound; round < firstRound + rounds; round++) {
      for (let p = 0; p < plans.length; p++) {
        if (plans[p].mode === 16 && (!narrow || round % NARROW_EVERY !== 0)) continue;
        const caseSeed = seedOf(seed, p, round);
        const n = batch.length;
        generate(new Random(caseSeed), plans[p], requests.subarray(n * REQUEST.BYTES, (n + 1) * REQUEST.BYTES));
        batch.push({ plan: plans[p], seed: caseSeed });
        if (batch.length === BATCH) await flush();
      }
      if (until?.() === true) break;
    }
    if (batch.length > 0) await flush();
  } finally {
    host.close();
  }
  return outcome;
}
