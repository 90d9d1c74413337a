// skep itself, through its command, as a user would run it.

import { fileURLToPath } from "node:url";
import type { BenchGuest } from "./guest.ts";
import { type GuestRun, RAM_MEGABYTES, runGuest } from "./guest-run.ts";

const skep = fileURLToPath(new URL("../bin/skep", import.meta.url));

export function runSkep(
  guest: BenchGuest,
  prefix: readonly string[],
  timeoutMs: number,
  engine: string,
  extra: readonly string[],
): Promise<GuestRun> {
  const command = [
    skep,
    "run",
    "--kernel",
    guest.kernel,
    "--initrd",
    guest.initrd,
    "--append",
    guest.append,
    "--memory",
    `${RAM_MEGABYTES}M`,
    "--engine",
    engine,
  ];
  return runGuest([...prefix, ...command, ...extra], timeoutMs);
}
