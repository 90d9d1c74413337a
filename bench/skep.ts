// skep itself, through its command, as a user would run it.

import { fileURLToPath } from "node:url";
import type { BenchGuest } from "./guest.ts";
import { type GuestRun, runGuest } from "./guest-run.ts";

const skep = fileURLToPath(new URL("../bin/skep", import.meta.url));

export function runSkep(
  guest: BenchGuest,
  prefix: readonly string[],
  timeoutMs: number,
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
    "512M",
  ];
  return runGuest([...prefix, ...command, ...extra], timeoutMs);
}
