// A machine of several vCPUs on threads of their own and nothing else, for litmus.S: one guest RAM, flat 64-bit code, no devices.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { EngineStatistics } from "../../src/vmm/engine.ts";
import { AT, Rig } from "../cpu/rig.ts";
import { controlBytes } from "./requests.ts";

export const DATA = 0x400000;
export const IDT = AT.IDT;
/** Of the interrupt that a vCPU sends to all others through port 0x100. */
export const VECTOR = 0x30;
/** Linear address and tables of the page of `dirty_bits`. */
const PAGE = 0x1000000;

export interface VcpuData {
  readonly id: number;
  readonly cpus: number;
  readonly ram: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  readonly entry: number;
  readonly rounds: number;
  /** Executions after which code is translated; undefined interprets. */
  readonly threshold: number | undefined;
}

export interface VcpuResult {
  readonly rip: number;
  /** Vector of the exception that ended it, or -1. */
  readonly caught: number;
  readonly statistics: EngineStatistics;
}

/** Asks of a thread: a vCPU, which is answered with its memory; then its run, answered with the result. */
export type ToVcpu =
  | { readonly kind: "make"; readonly data: VcpuData }
  | { readonly kind: "run"; readonly memories: readonly WebAssembly.Memory[] };

export interface LitmusResult {
  /** By vCPU: outcomes that are forbidden, and weak ones that are allowed. */
  readonly forbidden: readonly number[];
  readonly weak: readonly number[];
  /** The data area. */
  readonly data: DataView;
  readonly statistics: readonly EngineStatistics[];
}

interface Program {
  readonly bytes: Uint8Array;
  readonly symbols: ReadonlyMap<string, number>;
}

let assembled: Program | undefined;

function program(): Program {
  if (assembled !== undefined) return assembled;
  const folder = mkdtempSync(join(tmpdir(), "skep-litmus-"));
  try {
    const path = (name: string): string => join(folder, name);
    execFileSync("gcc", ["-c", join(import.meta.dirname, "litmus.S"), "-o", path("o")]);
    const at = `0x${AT.CODE.toString(16)}`;
    execFileSync(
      "ld",
      ["-m", "elf_x86_64", "-n", "--no-warn-rwx-segments", "-Ttext", at, path("o"), "-o", path("elf")],
      {
        stdio: "pipe",
      },
    );
    execFileSync("objcopy", ["-O", "binary", path("elf"), path("bin")]);
    const symbols = new Map<string, number>();
    for (const line of execFileSync("nm", [path("elf")], { encoding: "utf8" }).split("\n")) {
      const match = /^([0-9a-f]+) \w (\w+)$/.exec(line);
      if (match !== null) symbols.set(match[2], Number.parseInt(match[1], 16));
    }
    assembled = { bytes: readFileSync(path("bin")), symbols };
    return assembled;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function gate(rig: Rig, vector: number, handler: number): void {
  rig.view.setUint16(IDT + vector * 16, handler & 0xffff, true);
  rig.view.setUint16(IDT + vector * 16 + 6, handler >>> 16, true);
}

/** Runs a routine of litmus.S on all vCPUs. `prepare` may set up the data. */
export async function runLitmus(
  name: string,
  options: {
    readonly cpus: number;
    readonly rounds: number;
    readonly threshold?: number;
    prepare?(data: DataView): void;
  },
): Promise<LitmusResult> {
  const { bytes, symbols } = program();
  const entry = symbols.get(name);
  if (entry === undefined) throw new Error(`litmus.S has no routine ${name}`);
  const rig = new Rig();
  rig.bytes.set(bytes, AT.CODE);
  const data = new DataView(rig.ram.buffer, DATA, 0x200000);
  gate(rig, 3, symbols.get("breakpoint") as number);
  gate(rig, VECTOR, symbols.get("interrupt") as number);
  rig.view.setBigUint64(AT.PD + (PAGE >> 21) * 8, BigInt(DATA + 0x4000) | 7n, true);
  data.setBigUint64(0x4000, BigInt(DATA + 0x5000) | 7n, true);
  options.prepare?.(data);
  const control = new SharedArrayBuffer(controlBytes(options.cpus));
  const { rounds, cpus, threshold } = options;
  const workers = threads(cpus);
  const memories = await Promise.all(
    workers.map((worker, id) => {
      const vcpu: VcpuData = { id, cpus, ram: rig.ram, control, entry, rounds, threshold };
      return ask<WebAssembly.Memory>(worker, { kind: "make", data: vcpu });
    }),
  );
  const done = await Promise.all(workers.map((worker) => ask<VcpuResult>(worker, { kind: "run", memories }))).catch(
    async (error: unknown) => {
      // The others wait for the one that failed.
      await endThreads();
      throw error;
    },
  );
  done.forEach(({ caught, rip }, id) => {
    if (caught >= 0) throw new Error(`${name}: vCPU ${id} took exception ${caught} (rip ${rip.toString(16)})`);
  });
  const results = (offset: number): number[] =>
    done.map((_, id) => Number(data.getBigUint64(0x800 + id * 64 + offset, true)));
  return { forbidden: results(0), weak: results(8), data, statistics: done.map(({ statistics }) => statistics) };
}

const pool: Worker[] = [];

/** The first so many threads; each is made once, since it takes a second to be ready. */
function threads(count: number): readonly Worker[] {
  while (pool.length < count) pool.push(new Worker(new URL("./vcpu-worker.ts", import.meta.url)));
  return pool.slice(0, count);
}

export async function endThreads(): Promise<void> {
  await Promise.all(pool.splice(0).map((worker) => worker.terminate()));
}

function ask<T>(worker: Worker, message: ToVcpu): Promise<T> {
  return new Promise((resolve, reject) => {
    worker.once("message", (answer: T) => {
      worker.off("error", reject);
      resolve(answer);
    });
    worker.once("error", reject);
    worker.postMessage(message);
  });
}
