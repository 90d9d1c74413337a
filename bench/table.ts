// The benchmark's table: medians, ratios and what must be reached.

import type { GuestRun } from "./guest-run.ts";

/** What a row must reach, as QEMU's time over skep's: 1 is as fast as QEMU. */
export interface Bar {
  readonly row: string;
  readonly speed: number;
}

/** The interpreter's: the boot may take eight times QEMU's time. */
export const BARS: readonly Bar[] = [{ row: "boot", speed: 1 / 8 }];

/** Instructions of the `loop` workload: ten each time round (bench/workloads/integer.c). */
const LOOP_INSTRUCTIONS = 200e6;

export interface Summary {
  readonly bootMs: number | undefined;
  readonly idlePercent: number | undefined;
  readonly peakMegabytes: number | undefined;
  /** Median of the second runs, and of first over second, by workload. */
  readonly workloads: ReadonlyMap<string, { readonly ms: number; readonly warmUp: number; readonly checksum: string }>;
}

function median(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function summarize(runs: readonly GuestRun[]): Summary {
  const defined = (pick: (run: GuestRun) => number | undefined): number | undefined =>
    median(runs.map(pick).filter((value) => value !== undefined));
  const workloads = new Map<string, { ms: number; warmUp: number; checksum: string }>();
  for (const name of new Set(runs.flatMap((run) => [...run.workloads.keys()]))) {
    const times = runs.map((run) => run.workloads.get(name)).filter((time) => time !== undefined);
    workloads.set(name, {
      ms: (median(times.map((time) => time.second)) ?? 0) / 1e6,
      warmUp: median(times.map((time) => time.first / Math.max(time.second, 1))) ?? 1,
      checksum: [...new Set(times.map((time) => time.checksum))].join(","),
    });
  }
  return {
    bootMs: defined((run) => run.bootMs),
    idlePercent: defined((run) => run.idlePercent),
    peakMegabytes: defined((run) => run.peakMegabytes),
    workloads,
  };
}

function number(value: number | undefined, digits = 1): string {
  return value === undefined ? "-" : value.toFixed(digits);
}

/** The table as lines, and the rows that fall short of their bars. */
export function table(
  names: readonly string[],
  qemu: Summary | undefined,
  skep: Summary | undefined,
  expected: ReadonlyMap<string, string>,
  scale: number,
): { lines: string[]; short: string[] } {
  const rows: string[][] = [["", "QEMU ms", "skep ms", "speed", "QEMU 1st/2nd", "skep 1st/2nd", "checksum"]];
  const short: string[] = [];
  const speeds: number[] = [];
  const add = (name: string, q: number | undefined, s: number | undefined, more: readonly string[]): void => {
    const speed = q !== undefined && s !== undefined && s > 0 ? q / s : undefined;
    const bar = BARS.find((candidate) => candidate.row === name);
    if (bar !== undefined && speed !== undefined && speed < bar.speed) {
      short.push(`${name}: ${speed.toFixed(2)} times QEMU's speed, ${bar.speed.toFixed(2)} wanted`);
    }
    if (speed !== undefined && name !== "boot") speeds.push(speed);
    rows.push([name, number(q), number(s), number(speed, 2), ...more]);
  };
  add("boot", qemu?.bootMs, skep?.bootMs, ["", "", ""]);
  for (const name of names) {
    const q = qemu?.workloads.get(name);
    const s = skep?.workloads.get(name);
    const wrong = [q, s].some((one) => one !== undefined && one.checksum !== expected.get(name));
    if (wrong) short.push(`${name}: the checksum is not the host's`);
    add(name, q?.ms, s?.ms, [number(q?.warmUp, 2), number(s?.warmUp, 2), wrong ? "WRONG" : "ok"]);
  }
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]))).join("  "),
  );
  if (speeds.length > 0) {
    const mean = Math.exp(speeds.reduce((sum, speed) => sum + Math.log(speed), 0) / speeds.length);
    lines.push("", `geometric mean of the workloads: ${mean.toFixed(3)} times QEMU's speed`);
  }
  for (const [who, summary] of [
    ["QEMU", qemu],
    ["skep", skep],
  ] as const) {
    if (summary === undefined) continue;
    const loop = summary.workloads.get("loop");
    const mips = loop === undefined ? undefined : (LOOP_INSTRUCTIONS * scale) / (loop.ms * 1000);
    lines.push(
      `${who}: ${number(mips, 0)} million instructions a second in the loop, ` +
        `${number(summary.idlePercent, 2)} % of a core when idle, ${number(summary.peakMegabytes, 0)} MB resident at most`,
    );
  }
  return { lines, short };
}
