// A guest of Debian's that reports, in a process of `skep run`, and what it comes to. A machine that does not end within its limit is looked at
// through its control socket, and stopped.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ControlClient } from "../../src/host/node/control-socket.ts";
import { debianGuest, type Flavour } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs, type InitramfsOptions } from "../../src/host/node/initramfs.ts";
import type { ControlRequest } from "../../src/machine/control.ts";
import { TROUBLE } from "../system/linux.ts";
import { machineState, pause } from "./machine-state.ts";

const skep = fileURLToPath(new URL("../../bin/skep", import.meta.url));

/** At the end of each script: what `troubleOf` reads. */
export const REPORT = `
echo "soak processors $(grep -c ^processor /proc/cpuinfo)"
echo "soak clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
dmesg
echo "soak done"
`;

/** The log has room for all that a long run says. */
export const COMMAND_LINE = "console=ttyS0 panic=-1 quiet log_buf_len=4M";

export interface GuestRun {
  readonly flavour: Flavour;
  readonly cpus: number;
  readonly script: string;
  readonly files?: InitramfsOptions["files"];
  /** A guard against hangs alone. */
  readonly limitSeconds: number;
}

export interface GuestResult {
  readonly console: string;
  readonly seconds: number;
  /** What is wrong, nothing where all is well. */
  readonly wrong: readonly string[];
  /** Where the machine stood at its limit. */
  readonly state: string | undefined;
}

/** What is wrong with a guest that has reported. */
export function troubleOf(console: string, cpus: number): string[] {
  const lines = console.split(/\r*\n/);
  const wrong = [`soak processors ${cpus}`, "soak clock tsc", "soak done"]
    .filter((line) => !lines.includes(line))
    .map((line) => `no line "${line}"`);
  return [...wrong, ...lines.filter((line) => TROUBLE.test(line))];
}

let boots = 0;

export async function runGuest(run: GuestRun): Promise<GuestResult> {
  const { kernel, busybox } = await debianGuest({ flavour: run.flavour });
  const folder = await mkdtemp(join(tmpdir(), "skep-soak-"));
  try {
    const initrd = join(folder, "initramfs.cpio");
    const script = `${run.script}\n${REPORT}`;
    await writeFile(initrd, await buildInitramfs({ busybox, script, files: run.files ?? {} }));
    const name = `soak-${process.pid}-${boots++}`;
    const machine = ["--kernel", kernel, "--initrd", initrd, "--append", COMMAND_LINE, "--cpus", String(run.cpus)];
    const threads = run.cpus === 1 ? "one" : "each";
    return await runCommand(name, [...machine, "--threads", threads, "--engine", "translate"], run);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runCommand(name: string, args: readonly string[], run: GuestRun): Promise<GuestResult> {
  const start = performance.now();
  const child = spawn(skep, ["run", "--name", name, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let console = "";
  let stderr = "";
  child.stdout.setEncoding("latin1").on("data", (text: string) => {
    console += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  let state: string | undefined;
  const limit = setTimeout(async () => {
    state = await stateOf(name, child.pid as number);
    // A machine that goes on now had missed a wake-up.
    if ((await Promise.race([ended, pause(10_000).then(() => "stuck")])) === "stuck") child.kill("SIGKILL");
    else state += "\nit went on when it was asked";
  }, run.limitSeconds * 1000);
  const status = await ended;
  clearTimeout(limit);
  const wrong = troubleOf(console, run.cpus);
  if (status !== 1) wrong.unshift(`exit status ${status}: ${stderr.trim()}`);
  if (state !== undefined) wrong.unshift(`not done after ${run.limitSeconds} s`);
  return { console, seconds: (performance.now() - start) / 1000, wrong, state };
}

async function stateOf(name: string, pid: number): Promise<string> {
  let client: ControlClient | undefined;
  const ask = async (request: ControlRequest): Promise<unknown> => {
    client ??= await ControlClient.connect(name);
    return client.request({ command: "control", request });
  };
  try {
    return await machineState(pid, ask);
  } finally {
    client?.close();
  }
}
