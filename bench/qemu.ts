// QEMU's own translator with one vCPU: what skep is measured against.

import type { BenchGuest } from "./guest.ts";
import { type GuestRun, RAM_MEGABYTES, runGuest } from "./guest-run.ts";

export function runQemu(guest: BenchGuest, prefix: readonly string[], timeoutMs: number): Promise<GuestRun> {
  const command = [
    "qemu-system-x86_64",
    "-accel",
    "tcg,thread=single",
    "-cpu",
    "max",
    "-m",
    `${RAM_MEGABYTES}M`,
    "-smp",
    "1",
  ];
  command.push("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot");
  command.push("-kernel", guest.kernel, "-initrd", guest.initrd, "-append", guest.append);
  return runGuest([...prefix, ...command], timeoutMs);
}
