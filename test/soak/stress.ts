// guests/linux/smp-stress.c for minutes, while processors go offline and come back.

import { fileURLToPath } from "node:url";
import { compileStatic } from "../../guests/linux/suite.ts";
import type { Flavour } from "../../src/host/node/debian-guest.ts";
import { runGuest } from "./guest-run.ts";
import { whileLocked } from "./quiet-lock.ts";
import { say, tell } from "./report.ts";

/** The kinds of work that report. */
export const STRESS_KINDS = ["forks", "threads", "pipes", "mappings", "signals", "code", "files"];

/** The script, for a machine of `cpus`. */
export function stressScript(seconds: number, cpus: number): string {
  const others = Array.from({ length: cpus - 1 }, (_, n) => n + 1).join(" ");
  return `
( while [ ! -e /tmp/enough ]; do for cpu in ${others}; do
  echo 0 > /sys/devices/system/cpu/cpu$cpu/online; sleep 0.2
  echo 1 > /sys/devices/system/cpu/cpu$cpu/online; sleep 0.3
  echo $cpu >> /tmp/turns
done; done ) &
/smp-stress ${seconds}
echo "stress status $?"
touch /tmp/enough
wait
echo "stress turns $(wc -l < /tmp/turns)"
`;
}

export async function stressFiles(): Promise<{ "smp-stress": { data: Uint8Array; mode: number } }> {
  const source = fileURLToPath(new URL("../../guests/linux/smp-stress.c", import.meta.url));
  const { program } = await compileStatic(source, ["-pthread"]);
  return { "smp-stress": { data: program, mode: 0o755 } };
}

/** What is missing of the stress's own report. */
export function stressTrouble(console: string): string[] {
  const lines = console.split(/\r*\n/);
  const wrong = STRESS_KINDS.filter((kind) => !lines.some((line) => line.startsWith(`stress ${kind} ok `)));
  const missing = wrong.map((kind) => `${kind} did not come to its end`);
  return lines.includes("stress status 0") ? missing : [...missing, "the stress failed"];
}

export interface Stress {
  readonly minutes: number;
  readonly cpus: number;
  readonly flavour: Flavour;
  /** Beyond the minutes. */
  readonly limitSeconds: number;
  readonly lock: string | undefined;
}

export async function runStress({ minutes, cpus, flavour, limitSeconds, lock }: Stress): Promise<number> {
  const seconds = Math.max(1, Math.round(minutes * 60));
  const script = stressScript(seconds, cpus);
  const run = { flavour, cpus, script, files: await stressFiles(), limitSeconds: seconds + limitSeconds };
  const result = await whileLocked(lock, () => runGuest(run));
  const wrong = [...result.wrong, ...stressTrouble(result.console)];
  for (const line of result.console.split(/\r*\n/)) if (line.startsWith("stress ")) say(line);
  if (wrong.length > 0) tell({ what: "stress", ...result, wrong });
  say(`stress of ${minutes} minutes, ${cpus} vCPUs: ${wrong.length === 0 ? "all is well" : "failed"}`);
  return Number(wrong.length > 0);
}
