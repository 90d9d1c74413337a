// bin/node bench/profile-handlers.ts [COUNT]: counts which handlers of the interpreter a boot of Debian's cloud kernel and a short run of the
// benchmark's workloads execute, and writes the COUNT most frequent ones (192) to src/cpu/inline-handlers.ts.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { TranslateEngine } from "../src/cpu/engine.ts";
import { HANDLER_COUNTS } from "../src/cpu/layout.ts";
import { generateEngineModule } from "../src/cpu/standard-module.ts";
import { webHost } from "../src/host/host.ts";
import { machineConfig } from "../src/machine/config.ts";
import { Machine } from "../src/machine/machine.ts";
import { HostClock } from "../src/vmm/clock.ts";
import { traceTo } from "../src/vmm/trace.ts";
import { buildGuest, buildWorkloads } from "./guest.ts";

/** Kernel-bound and floating-point ones; the loops of the others are among what a boot does. */
const WORKLOADS = ["getpid", "ping-pong", "page-fault", "fork-exec", "sha256", "quicksort", "bytecode", "n-body"];
const TARGET = fileURLToPath(new URL("../src/cpu/inline-handlers.ts", import.meta.url));

const count = Number(process.argv[2] ?? 192);
if (!Number.isInteger(count) || count < 1 || count > 512) throw new Error("the number of handlers must be 1 to 512");

const folder = await mkdtemp(join(tmpdir(), "skep-profile-"));
const { bytes, plan } = generateEngineModule({ countHandlers: true });
const host = { ...webHost, engineModule: new WebAssembly.Module(bytes) };

/** Executions by handler of one run from power-on to power-off. */
async function profile(names: readonly string[], program: string): Promise<Uint32Array> {
  const guest = await buildGuest(folder, program, names, { scale: 1, idle: false });
  const clock = new HostClock(host.now);
  const machine = new Machine({
    config: machineConfig({ engine: "interpret", memory: "512M" }),
    disks: [],
    clock,
    host,
    trace: traceTo([], () => undefined),
    onSerial: () => undefined,
    onConsole: () => undefined,
    onRoom: () => undefined,
  });
  const read = async (path: string): Promise<Uint8Array<ArrayBuffer>> => new Uint8Array(await readFile(path));
  machine.boot({
    name: "vmlinuz",
    bytes: await read(guest.kernel),
    initrd: await read(guest.initrd),
    commandLine: guest.append,
  });
  clock.start();
  for (;;) {
    const outcome = machine.run(() => false);
    if (outcome.kind === "exit") break;
    if (outcome.kind === "idle")
      Atomics.wait(
        new Int32Array(new SharedArrayBuffer(4)),
        0,
        0,
        Math.min(10, Math.max(0, (outcome.wakeAt - clock.now()) / 1e6)),
      );
  }
  const { engine } = machine.pc.vm.vcpus[0];
  if (!(engine instanceof TranslateEngine)) throw new Error("the machine has another engine");
  return new Uint32Array(engine.memory.buffer, HANDLER_COUNTS, plan.handlers.length).slice();
}

try {
  const { program } = await buildWorkloads(join(folder, "build"));
  const boot = await profile([], program);
  const work = await profile(WORKLOADS, program);
  // The second run boots too; each of the two kinds of work gets the same weight.
  const bootTotal = boot.reduce((sum, n) => sum + n, 0);
  const workTotal = work.reduce((sum, n, i) => sum + Math.max(0, n - boot[i]), 0);
  const share = Array.from(boot, (n, i) => n / bootTotal + Math.max(0, work[i] - n) / workTotal);
  const ranked = plan.handlers
    .flatMap((spec, i) => (spec === undefined || share[i] === 0 ? [] : [{ name: spec.name, share: share[i] / 2 }]))
    .toSorted((a, b) => b.share - a.share);
  const chosen = ranked.slice(0, count);
  const covered = chosen.reduce((sum, handler) => sum + handler.share, 0);
  const text = `// Handlers that the interpreter's main loop holds inline, most frequent first, as bench/profile-handlers.ts counted them over a boot of
// Debian's cloud kernel and a run of the benchmark's workloads: ${(covered * 100).toFixed(1)} % of what is executed. All others are functions.

export const INLINE_HANDLERS: readonly string[] = [
${chosen.map(({ name }) => `  ${JSON.stringify(name)},\n`).join("")}];
`;
  await writeFile(TARGET, text);
  console.log(
    `${chosen.length} of ${ranked.length} handlers that were used: ${(covered * 100).toFixed(2)} % of all executions`,
  );
} finally {
  await rm(folder, { recursive: true, force: true });
}
