// The host CPU's side: builds harness.c once per source text into the temporary folder and hands it batches.

import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { CODE_BASE, DATA_BASE, dataPattern, REQUEST, SEGMENT_16 } from "./record.ts";

const FLAGS = ["-O2", "-std=gnu11", "-Wall"];

/** Why native runs are impossible here, or undefined. */
export function hostUnable(): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64") return "needs Linux on x86-64";
  try {
    execFileSync("gcc", ["--version"], { stdio: "ignore" });
  } catch {
    return "needs gcc";
  }
  return undefined;
}

function build(): string {
  const source = join(import.meta.dirname, "harness.c");
  const key = createHash("sha256").update(readFileSync(source)).update(FLAGS.join(" ")).digest("hex").slice(0, 16);
  const folder = join(tmpdir(), `skep-oracle-${process.getuid?.() ?? 0}`);
  const program = join(folder, `harness-${key}`);
  if (!existsSync(program)) {
    mkdirSync(folder, { recursive: true });
    const fresh = `${program}.${process.pid}`;
    execFileSync("gcc", [...FLAGS, "-o", fresh, source], { stdio: "inherit" });
    renameSync(fresh, program);
  }
  return program;
}

export class HostRunner {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #chunks: Buffer[] = [];
  #have = 0;
  #need = 0;
  #ready: ((bytes: Buffer) => void) | undefined;
  #failed: ((error: Error) => void) | undefined;

  constructor() {
    this.#child = spawn(build(), { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdout.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#have += chunk.length;
      this.#deliver();
    });
    this.#child.on("exit", (code, signal) => {
      this.#failed?.(new Error(`the harness ended by itself: ${signal ?? code}`));
    });
    const { CODE, DATA } = SEGMENT_16;
    const places = Uint32Array.of(CODE_BASE, DATA_BASE, CODE.limit, DATA.base, DATA.limit);
    this.#child.stdin.write(new Uint8Array(places.buffer));
    this.#child.stdin.write(dataPattern());
  }

  #deliver(): void {
    if (this.#ready === undefined || this.#have < this.#need) return;
    const all = Buffer.concat(this.#chunks);
    this.#chunks.length = 0;
    this.#have = all.length - this.#need;
    if (this.#have > 0) this.#chunks.push(all.subarray(this.#need));
    const ready = this.#ready;
    this.#ready = undefined;
    ready(all.subarray(0, this.#need));
  }

  #read(bytes: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#need = bytes;
      this.#ready = resolve;
      this.#failed = reject;
      this.#deliver();
    });
  }

  /** Whether the host's kernel lets a process have 16-bit segments. To be asked once, before anything else. */
  async has16BitCode(): Promise<boolean> {
    return (await this.#read(4)).readUInt32LE() !== 0;
  }

  /** Runs the first `count` requests of a batch; gives the results one behind the other. */
  async run(requests: Uint8Array, count: number): Promise<Uint8Array> {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(count);
    this.#child.stdin.write(head);
    this.#child.stdin.write(requests.subarray(0, count * REQUEST.BYTES));
    const length = (await this.#read(4)).readUInt32LE();
    return length === 0 ? new Uint8Array() : await this.#read(length);
  }

  close(): void {
    this.#failed = undefined;
    this.#child.removeAllListeners("exit");
    this.#child.stdin.end();
    this.#child.kill();
  }
}
