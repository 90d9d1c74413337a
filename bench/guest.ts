// The benchmark's guest: Debian's cloud kernel and an initramfs with the workloads, the same bytes for every emulator.

import { spawnSync } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { debianGuest } from "../src/host/node/debian-guest.ts";
import { buildInitramfs } from "../src/host/node/initramfs.ts";
import { MARK } from "./guest-run.ts";

export interface BenchGuest {
  readonly kernel: string;
  readonly initrd: string;
  readonly append: string;
  /** The workloads' program, which also runs on the host. */
  readonly program: string;
}

const IDLE_SECONDS = 4;
const sources = fileURLToPath(new URL("workloads", import.meta.url));

/** Compiles the workloads; the program's path and their names in order. */
export async function buildWorkloads(folder: string): Promise<{ program: string; names: string[] }> {
  await mkdir(folder, { recursive: true });
  const program = join(folder, "workloads");
  const files = (await readdir(sources)).filter((file) => file.endsWith(".c")).map((file) => join(sources, file));
  const gcc = spawnSync("gcc", ["-O2", "-static", "-o", program, ...files], { encoding: "utf8" });
  if (gcc.status !== 0) throw new Error(`gcc failed on the workloads: ${gcc.error?.message ?? gcc.stderr}`);
  const names = spawnSync(program, ["--list"], { encoding: "utf8" }).stdout.trim().split("\n");
  return { program, names };
}

/** Puts the guest together in a folder. `names` are the workloads to run after the boot; `idle` adds some seconds of sleep to watch. */
export async function buildGuest(
  folder: string,
  program: string,
  names: readonly string[],
  options: { readonly scale: number; readonly idle: boolean },
): Promise<BenchGuest> {
  const guest = await debianGuest({ flavour: "cloud" });
  const script = [`echo ${MARK.userspace}`];
  if (options.idle) script.push("sleep 1", `echo ${MARK.idle}`, `sleep ${IDLE_SECONDS}`, `echo ${MARK.awake}`);
  if (names.length > 0) script.push(`/workloads --scale ${options.scale} ${names.join(" ")}`);
  script.push(`echo ${MARK.done}`, "");
  const initrd = join(folder, "initramfs.cpio");
  await writeFile(
    initrd,
    await buildInitramfs({
      busybox: guest.busybox,
      script: script.join("\n"),
      files: { workloads: { data: await readFile(program), mode: 0o755 } },
    }),
  );
  return { kernel: guest.kernel, initrd, append: "console=ttyS0 panic=-1", program };
}
