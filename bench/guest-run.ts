// Runs one emulator with the benchmark's guest and collects what the guest prints, with the host's times of arrival.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

export interface WorkloadTimes {
  /** Nanoseconds of guest time: the first run, where all code is new, and the second. */
  readonly first: number;
  readonly second: number;
  readonly checksum: string;
}

export interface GuestRun {
  /** Milliseconds from the start of the process to the first line of userspace; undefined where it never came. */
  readonly bootMs: number | undefined;
  readonly workloads: ReadonlyMap<string, WorkloadTimes>;
  /** Share of one core that the process took while the guest slept, in percent. */
  readonly idlePercent: number | undefined;
  /** The largest resident size of the process that was seen, in megabytes. */
  readonly peakMegabytes: number;
  /** What was resident beside the guest's RAM when it was done. */
  readonly beyondRamMegabytes: number | undefined;
  /** What went wrong, in one line, and the last lines of the console. */
  readonly failure: string | undefined;
  readonly tail: string;
}

/** The lines of the guest's script that mean something here. */
export const MARK = {
  userspace: "BENCH-USERSPACE",
  idle: "BENCH-IDLE",
  awake: "BENCH-AWAKE",
  done: "BENCH-DONE",
} as const;

/** Of every machine that is measured. */
export const RAM_MEGABYTES = 512;

/** Linux's USER_HZ, in which proc(5) gives times. */
const TICKS_PER_SECOND = 100;

function cpuSeconds(pid: number): number | undefined {
  try {
    // proc(5): the name in parentheses may hold spaces; utime and stime are fields 14 and 15.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return undefined;
  }
}

function peakMegabytes(pid: number): number {
  try {
    return Number(/VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

/** Resident megabytes of all mappings but that of guest RAM: the one that can be written and is just larger than it (proc(5), smaps). */
function beyondRam(pid: number, ramMegabytes: number): number | undefined {
  let smaps: string;
  try {
    smaps = readFileSync(`/proc/${pid}/smaps`, "utf8");
  } catch {
    return undefined;
  }
  let total = 0;
  let ram: number | undefined;
  for (const mapping of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const kilobytes = (name: string): number => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(mapping)?.[1] ?? 0);
    const size = kilobytes("Size") / 1024;
    const resident = kilobytes("Rss") / 1024;
    total += resident;
    const isRam = /^\S+ rw/.test(mapping) && size >= ramMegabytes && size < ramMegabytes * 1.2;
    if (isRam && resident > (ram ?? -1)) ram = resident;
  }
  return ram === undefined ? undefined : total - ram;
}

/** Runs a command whose standard output is the guest's console, and ends it when the guest is done or the time is over. `onUserspace` gets the
 *  process's number when the guest has booted. */
export function runGuest(
  command: readonly string[],
  timeoutMs: number,
  onUserspace?: (pid: number) => Promise<void>,
): Promise<GuestRun> {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "pipe"] });
    const workloads = new Map<string, WorkloadTimes>();
    let bootMs: number | undefined;
    let idle: { at: number; cpu: number } | undefined;
    let idlePercent: number | undefined;
    let peak = 0;
    let beyondRamMegabytes: number | undefined;
    let done = false;
    let failure: string | undefined;
    let rest = "";
    let tail: string[] = [];
    let stderr = "";

    const onLine = (line: string): void => {
      tail = [...tail, line].slice(-15);
      const pid = child.pid ?? 0;
      const bench = /^BENCH (\S+) (\d) (\d+) ([0-9a-f]+)$/.exec(line);
      if (bench !== null) {
        const [, name, run, ns, checksum] = bench;
        const first = workloads.get(name)?.first ?? Number(ns);
        if (run === "2" && workloads.get(name)?.checksum !== checksum) failure ??= `${name}: the two runs differ`;
        workloads.set(name, { first, second: Number(ns), checksum });
      } else if (line === MARK.userspace) {
        bootMs = performance.now() - start;
        onUserspace?.(pid).catch((error: Error) => {
          failure ??= error.message;
        });
      } else if (line === MARK.idle) {
        idle = { at: performance.now(), cpu: cpuSeconds(pid) ?? 0 };
      } else if (line === MARK.awake && idle !== undefined) {
        const cpu = cpuSeconds(pid);
        if (cpu !== undefined) idlePercent = ((cpu - idle.cpu) / ((performance.now() - idle.at) / 1000)) * 100;
      } else if (line === MARK.done) {
        done = true;
        beyondRamMegabytes = beyondRam(pid, RAM_MEGABYTES);
      } else if (line.includes("Kernel panic")) {
        failure ??= line;
      }
      peak = Math.max(peak, peakMegabytes(pid));
    };

    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split(/\r*\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-2000);
    });
    child.stdin.on("error", () => undefined);
    const sampler = setInterval(() => {
      peak = Math.max(peak, peakMegabytes(child.pid ?? 0));
    }, 250);
    const deadline = setTimeout(() => {
      failure ??= `ended after ${Math.round(timeoutMs / 1000)} s`;
      child.kill("SIGKILL");
    }, timeoutMs);
    child.on("error", (error) => {
      const absent = (error as NodeJS.ErrnoException).code === "ENOENT";
      failure ??= absent ? `"${command[0]}" is not installed` : error.message;
    });
    child.on("close", (status, signal) => {
      clearInterval(sampler);
      clearTimeout(deadline);
      if (!done) failure ??= `the guest did not finish (${signal ?? `status ${status}`})`;
      const lines = [...tail, rest, stderr.trim()].filter((line) => line !== "");
      resolve({
        bootMs,
        workloads,
        idlePercent,
        peakMegabytes: peak,
        beyondRamMegabytes,
        failure,
        tail: lines.join("\n"),
      });
    });
  });
}
