// Debian's cloud kernel with a shell script as its only userspace, in a process of `skep run`.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DebianGuest, debianGuest, type Flavour } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs, type InitramfsOptions } from "../../src/host/node/initramfs.ts";
import { runSkep } from "../cli/run.ts";

export interface LinuxRun {
  readonly script: string;
  /** More files of the initramfs. */
  readonly files?: InitramfsOptions["files"];
  /** Kernel modules to load. */
  readonly modules?: readonly string[];
  /** More for the kernel's command line. */
  readonly append?: string;
  readonly args?: readonly string[];
  readonly flavour?: Flavour;
}

export function initramfs(guest: DebianGuest, { script, files = {}, modules = [] }: LinuxRun): Promise<Uint8Array> {
  return buildInitramfs({ busybox: guest.busybox, script, files, modules, modulesDir: guest.modulesDir });
}

/** Boots and runs the script; the machine powers off when it ends. */
export async function runLinux(run: LinuxRun): Promise<Awaited<ReturnType<typeof runSkep>>> {
  const guest = await debianGuest({ flavour: run.flavour ?? "cloud" });
  const folder = await mkdtemp(join(tmpdir(), "skep-linux-"));
  try {
    const initrd = join(folder, "initramfs.cpio");
    await writeFile(initrd, await initramfs(guest, run));
    const append = `console=ttyS0 panic=-1 quiet ${run.append ?? ""}`;
    const args = ["--kernel", guest.kernel, "--initrd", initrd, "--append", append, ...(run.args ?? [])];
    return await runSkep(["run", ...args], { timeoutMs: 600_000 });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Lines of a kernel log that no healthy boot has. */
export const TROUBLE = /WARNING|BUG:|\bOops\b|lockup|stall|unstable|call trace|not responding|timed out/i;
