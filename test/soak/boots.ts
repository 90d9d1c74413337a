// Boots in a row, each from power-on to power-off in a process of its own.

import type { Flavour } from "../../src/host/node/debian-guest.ts";
import { runGuest } from "./guest-run.ts";
import { whileLocked } from "./quiet-lock.ts";
import { say, secondsText, tell } from "./report.ts";

export interface Boots {
  readonly count: number;
  readonly cpus: readonly number[];
  readonly flavours: readonly Flavour[];
  readonly limitSeconds: number;
  readonly lock: string | undefined;
}

/** `count` boots of each flavour with each number of vCPUs; how many failed. */
export async function runBoots({ count, cpus, flavours, limitSeconds, lock }: Boots): Promise<number> {
  let failures = 0;
  for (const flavour of flavours) {
    for (const number of cpus) {
      const seconds: number[] = [];
      let failed = 0;
      for (let n = 1; n <= count; n++) {
        const run = { flavour, cpus: number, script: "", limitSeconds };
        const result = await whileLocked(lock, () => runGuest(run));
        seconds.push(result.seconds);
        if (result.wrong.length === 0) continue;
        failed++;
        tell({ what: `boot ${n}, ${flavour} kernel, ${number} vCPUs`, ...result });
      }
      say(`${flavour} kernel, ${number} vCPUs: ${count} boots, ${failed} failed, ${secondsText(seconds)}`);
      failures += failed;
    }
  }
  return failures;
}
