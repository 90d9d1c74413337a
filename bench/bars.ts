// What the benchmark's rows are to reach, as QEMU's time over skep's: 1 is as fast as QEMU.

export interface Bar {
  /** Must be reached, and should be. */
  readonly bar: number;
  /** "native": the host's own time. */
  readonly aim: number | "native";
}

export interface Group {
  readonly name: string;
  readonly rows: readonly string[];
  /** Of each row. */
  readonly each: Bar;
  /** Of the geometric mean of all. */
  readonly mean?: Bar;
}

/** Rows of no group (the loop) are measured for what they tell. */
export const GROUPS: readonly Group[] = [
  {
    name: "integer",
    rows: [
      "sieve",
      "matrix",
      "crc32",
      "list",
      "string-sort",
      "sha256",
      "quicksort",
      "fibonacci",
      "indirect",
      "bytecode",
    ],
    each: { bar: 0.9, aim: 1.2 },
    mean: { bar: 1.3, aim: 2 },
  },
  { name: "floating point", rows: ["n-body", "matrix-double", "dot"], each: { bar: 3, aim: 5 } },
  { name: "x87", rows: ["x87-loop", "x87-n-body"], each: { bar: 1, aim: 3 } },
  {
    name: "system",
    rows: ["getpid", "ping-pong", "page-fault", "fork-wait", "fork-exec"],
    each: { bar: 0.8, aim: 1.5 },
  },
  { name: "memory", rows: ["rep-movs", "rep-stos", "memcpy", "memset"], each: { bar: 10, aim: "native" } },
];

/** Boot to userspace: at most 1.5 times QEMU's time, better 0.7 times. */
export const BOOT: Bar = { bar: 1 / 1.5, aim: 1 / 0.7 };
/** The first run of a workload, when all of its code is new, over its second: at most. */
export const WARM_UP = { bar: 3, aim: 1.5 } as const;
/** Megabytes of the process beyond the guest's RAM, after everything: at most. */
export const BEYOND_RAM = { bar: 400, aim: 200 } as const;

export function barOf(row: string): Bar | undefined {
  return row === "boot" ? BOOT : GROUPS.find(({ rows }) => rows.includes(row))?.each;
}
