// The benchmark's table: medians, ratios, and what of them reaches its bar and its aim (bars.ts).

import { type Bar, BEYOND_RAM, BOOT, barOf, GROUPS, WARM_UP } from "./bars.ts";
import type { GuestRun } from "./guest-run.ts";

/** Instructions of the `loop` workload: ten each time round (bench/workloads/integer.c). */
const LOOP_INSTRUCTIONS = 200e6;

export interface Summary {
  readonly bootMs: number | undefined;
  readonly idlePercent: number | undefined;
  readonly peakMegabytes: number | undefined;
  readonly beyondRamMegabytes: number | undefined;
  /** Median of the second runs, and of first over second, by workload. */
  readonly workloads: ReadonlyMap<string, { readonly ms: number; readonly warmUp: number; readonly checksum: string }>;
}

export interface Measured {
  readonly qemu: Summary | undefined;
  /** By engine, the one that the bars are for first. */
  readonly engines: ReadonlyMap<string, Summary>;
  /** The host's own times and checksums. */
  readonly native: ReadonlyMap<string, { readonly ms: number; readonly checksum: string }>;
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
    beyondRamMegabytes: defined((run) => run.beyondRamMegabytes),
    workloads,
  };
}

function number(value: number | undefined, digits = 2): string {
  return value === undefined ? "" : value.toFixed(digits);
}

type Verdict = "" | "aim" | "bar" | "SHORT";

/** A row: what was measured, and what it has to reach. */
interface Line {
  readonly cells: readonly string[];
  readonly short?: string;
}

/** `most`: less is better. */
function judge(value: number | undefined, bar: number, aim: number | undefined, most = false): Verdict {
  if (value === undefined) return "";
  const reaches = (limit: number): boolean => (most ? value <= limit : value >= limit);
  if (aim !== undefined && reaches(aim)) return "aim";
  return reaches(bar) ? "bar" : "SHORT";
}

class Table {
  readonly short: string[] = [];
  private readonly measured: Measured;
  private readonly lines: Line[] = [];
  private readonly first: Summary | undefined;

  constructor(measured: Measured) {
    this.measured = measured;
    [this.first] = measured.engines.values();
  }

  get header(): string[] {
    const names = [...this.measured.engines.keys()];
    return ["", "QEMU", ...names, "native", "speed", "bar", "aim", "reached", "1st/2nd"];
  }

  private add(
    name: string,
    times: readonly string[],
    speed: string,
    bar: string,
    aim: string,
    verdict: Verdict,
    rest = "",
  ): void {
    this.lines.push({ cells: [name, ...times, speed, bar, aim, verdict, rest] });
    if (verdict === "SHORT") this.short.push(`${name}: ${speed}, ${bar} wanted`);
  }

  private empty(): string[] {
    return Array.from({ length: this.measured.engines.size + 2 }, () => "");
  }

  /** A time under QEMU, under each engine, and natively, in milliseconds. */
  time(name: string, of: (summary: Summary) => number | undefined, bar: Bar | undefined): number | undefined {
    const { qemu, engines, native } = this.measured;
    const q = qemu === undefined ? undefined : of(qemu);
    const s = this.first === undefined ? undefined : of(this.first);
    const speed = q !== undefined && s !== undefined && s > 0 ? q / s : undefined;
    const own = native.get(name)?.ms;
    const times = [q, ...[...engines.values()].map(of), own].map((ms) => number(ms, 1));
    const aim = bar?.aim === "native" ? (q === undefined || own === undefined ? undefined : q / own) : bar?.aim;
    const verdict = bar === undefined ? "" : judge(speed, bar.bar, aim);
    this.add(
      name,
      times,
      number(speed),
      number(bar?.bar),
      number(aim),
      verdict,
      number(this.first?.workloads.get(name)?.warmUp),
    );
    return speed;
  }

  mean(name: string, speeds: readonly number[], bar: Bar | undefined): void {
    if (speeds.length === 0) return;
    const value = Math.exp(speeds.reduce((sum, speed) => sum + Math.log(speed), 0) / speeds.length);
    const aim = typeof bar?.aim === "number" ? bar.aim : undefined;
    const verdict = bar === undefined ? "" : judge(value, bar.bar, aim);
    this.add(name, this.empty(), number(value), number(bar?.bar), number(aim), verdict);
  }

  /** What is to be at most so much. */
  most(
    name: string,
    value: number | undefined,
    limits: { readonly bar: number; readonly aim: number },
    digits: number,
  ): void {
    const verdict = judge(value, limits.bar, limits.aim, true);
    this.add(name, this.empty(), number(value, digits), `<= ${limits.bar}`, `<= ${limits.aim}`, verdict);
  }

  render(markdown: boolean): string[] {
    const rows = [this.header, ...this.lines.map(({ cells }) => [...cells])];
    if (markdown) {
      const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
      return [line(rows[0]), line(rows[0].map((_, n) => (n === 0 ? "---" : "---:"))), ...rows.slice(1).map(line)];
    }
    const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
    return rows.map((row) =>
      row
        .map((cell, n) => (n === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[n])))
        .join("  ")
        .trimEnd(),
    );
  }
}

/** The table as lines, what was seen besides, and the rows that fall short of their bars. */
export function table(
  names: readonly string[],
  measured: Measured,
  options: { readonly scale: number; readonly markdown: boolean; readonly whole: boolean },
): { lines: string[]; short: string[] } {
  const { qemu, engines, native } = measured;
  const made = new Table(measured);
  const [first] = engines.values();
  made.time("boot", (summary) => summary.bootMs, BOOT);
  const grouped = GROUPS.flatMap(({ rows }) => rows);
  const ofName = (name: string) => (summary: Summary) => summary.workloads.get(name)?.ms;
  for (const name of names.filter((one) => !grouped.includes(one))) made.time(name, ofName(name), undefined);
  for (const { name: group, rows, mean } of GROUPS) {
    const speeds: number[] = [];
    const present = rows.filter((row) => names.includes(row));
    for (const row of present) {
      const speed = made.time(row, ofName(row), barOf(row));
      if (speed !== undefined) speeds.push(speed);
    }
    if (present.length > 1)
      made.mean(`${group}, geometric mean`, speeds, present.length === rows.length ? mean : undefined);
  }
  const warmUps = [...(first?.workloads ?? [])].filter(([name]) => names.includes(name));
  if (warmUps.length > 0) {
    const [worst, { warmUp }] = warmUps.reduce((a, b) => (b[1].warmUp > a[1].warmUp ? b : a));
    made.most(`first run over second, the worst (${worst})`, warmUp, WARM_UP, 2);
  }
  if (options.whole) made.most("MB beyond the guest's RAM, at the end", first?.beyondRamMegabytes, BEYOND_RAM, 0);

  for (const name of names) {
    for (const summary of [qemu, ...engines.values()]) {
      const checksum = summary?.workloads.get(name)?.checksum;
      if (checksum !== undefined && checksum !== native.get(name)?.checksum)
        made.short.push(`${name}: the checksum is not the host's`);
    }
  }
  const lines = [...made.render(options.markdown), ""];
  for (const [who, summary] of [["QEMU", qemu] as const, ...engines]) {
    if (summary === undefined) continue;
    const loop = summary.workloads.get("loop");
    const parts: string[] = [];
    if (loop !== undefined)
      parts.push(
        `${number((LOOP_INSTRUCTIONS * options.scale) / (loop.ms * 1000), 0)} million instructions a second in the loop`,
      );
    if (summary.idlePercent !== undefined) parts.push(`${number(summary.idlePercent)} % of a core when idle`);
    parts.push(`${number(summary.peakMegabytes, 0)} MB resident at most`);
    if (summary.beyondRamMegabytes !== undefined)
      parts.push(`${number(summary.beyondRamMegabytes, 0)} MB of that beyond the guest's RAM at the end`);
    lines.push(`${options.markdown ? "- " : ""}${who}: ${parts.join(", ")}`);
  }
  return { lines, short: made.short };
}
