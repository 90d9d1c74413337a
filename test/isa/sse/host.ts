// The host's processor as the judge of SSE and MMX instructions: builds host.c with the C compiler, where there is one, and passes it
// records of machine state.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const RECORD = {
  /** FXSAVE image (SDM Vol. 1 table 10-2). */
  FX: 0,
  RAX: 512,
  RCX: 520,
  RDX: 528,
  RBX: 536,
  RSI: 544,
  /** 32 bytes, which RDI points to. */
  MEMORY: 576,
  CODE: 608,
  RFLAGS: 640,
  SIGNAL: 648,
  LENGTH: 652,
  SIZE: 656,
} as const;

export const SIGNAL = { SIGILL: 4, SIGFPE: 8, SIGSEGV: 11 } as const;

/** The program, or undefined where this host cannot judge (no x86-64, no compiler). */
export function buildHost(): string | undefined {
  if (process.arch !== "x64" || process.platform !== "linux") return undefined;
  const compiler = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);
  if (compiler === undefined) return undefined;
  const program = join(mkdtempSync(join(tmpdir(), "skep-sse-")), "host");
  execFileSync(compiler, ["-O1", "-o", program, fileURLToPath(new URL("host.c", import.meta.url))]);
  return existsSync(program) ? program : undefined;
}

/** Runs all records; gives them as they are after. */
export function runHost(program: string, records: Uint8Array): Uint8Array {
  const { stdout, status, error } = spawnSync(program, { input: records, maxBuffer: records.length + 1024 });
  if (status !== 0 || stdout.length !== records.length)
    throw error ?? new Error(`the host program ended with ${status}`);
  return new Uint8Array(stdout);
}
