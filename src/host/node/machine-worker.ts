// The worker that a machine runs in: builds it from what the owner asked for, runs it to its end, and is gone.

import { parentPort, workerData } from "node:worker_threads";
import { compilerPlace, type MachineRequest, machineConfig } from "../../machine/config.ts";
import type { FromMachine, SpawnMessage } from "../../machine/protocol.ts";
import { asSkepError, MachineRunner, type RunnerOptions } from "../../machine/runner.ts";
import type { Snapshot } from "../../machine/snapshot.ts";
import { webHost } from "../host.ts";
import { MailboxReceiver } from "../mailbox.ts";
import type { CompilerConnection } from "./compiler-connection.ts";
import { cachedEngineModule } from "./engine-cache.ts";
import { type DiskFile, type KernelFiles, openDisks, readKernelFiles } from "./machine-files.ts";
import { translatorFor } from "./translator.ts";

export interface MachineWorkerData {
  readonly mailbox: SharedArrayBuffer;
  /** To the compiler, where that has a thread: one for each vCPU. */
  readonly compiler?: readonly CompilerConnection[];
  readonly machine: MachineRequest;
  readonly kernel: KernelFiles;
  readonly disks: readonly DiskFile[];
  readonly snapshot?: Snapshot;
}

const data = workerData as MachineWorkerData;
const post = (message: FromMachine | SpawnMessage): void => {
  const memory = message.type === "reply" ? message.snapshot?.memory : undefined;
  parentPort?.postMessage(message, memory?.map(({ bytes }) => bytes.buffer) ?? []);
};

/** Checking takes an engine module of its own, which notes what stores overwrite. */
async function engineFor(
  checkRegions: number,
): Promise<Pick<RunnerOptions, "host"> & Partial<Pick<RunnerOptions, "checker">>> {
  if (checkRegions === 0) return { host: { ...webHost, engineModule: await cachedEngineModule() } };
  const { engineModuleWithJournal } = await import("../../cpu/standard-module.ts");
  const { regionChecker } = await import("../../cpu/translator/standard-translator.ts");
  return { host: { ...webHost, engineModule: engineModuleWithJournal() }, checker: regionChecker(checkRegions) };
}

try {
  const config = machineConfig(data.machine);
  const kernel = () => readKernelFiles(data.kernel, config.memoryBytes);
  const runner = new MachineRunner({
    config,
    kernel,
    disks: openDisks(data.disks),
    snapshot: data.snapshot,
    ...(await engineFor(config.checkRegions)),
    // Whoever wants to read code has it made here.
    translator: await translatorFor(config, compilerPlace(config) === "thread" ? data.compiler : undefined),
    mailbox: new MailboxReceiver(data.mailbox),
    mailboxMemory: data.mailbox,
    post,
  });
  runner.run();
} catch (error) {
  const { code, message, cause } = asSkepError(error);
  // The place of a fault of our own is worth more than a clean line.
  if (code === "internal" && process.env.SKEP_DEBUG !== undefined) console.error(cause);
  post({ type: "failed", code, message });
}
