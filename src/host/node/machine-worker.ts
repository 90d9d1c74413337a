// The worker that a machine runs in: builds it from what the owner asked for, runs it to its end, and is gone.

import { parentPort, workerData } from "node:worker_threads";
import { type MachineRequest, machineConfig } from "../../machine/config.ts";
import type { FromMachine } from "../../machine/protocol.ts";
import { asSkepError, MachineRunner, type RunnerOptions } from "../../machine/runner.ts";
import { webHost } from "../host.ts";
import { MailboxReceiver } from "../mailbox.ts";
import { cachedEngineModule } from "./engine-cache.ts";
import { type DiskFile, type KernelFiles, openDisks, readKernelFiles } from "./machine-files.ts";

export interface MachineWorkerData {
  readonly mailbox: SharedArrayBuffer;
  readonly machine: MachineRequest;
  readonly kernel: KernelFiles;
  readonly disks: readonly DiskFile[];
}

const data = workerData as MachineWorkerData;
const post = (message: FromMachine): void => parentPort?.postMessage(message);

/** Only a machine that translates loads the translator, and the instruction descriptions with it. */
async function translatorFor(engine: string): Promise<RunnerOptions["translator"]> {
  if (engine !== "translate") return undefined;
  const { standardTranslator } = await import("../../cpu/translator/standard-translator.ts");
  return standardTranslator();
}

try {
  const config = machineConfig(data.machine);
  const kernel = () => readKernelFiles(data.kernel, config.memoryBytes);
  const runner = new MachineRunner({
    config,
    kernel,
    disks: openDisks(data.disks),
    host: { ...webHost, engineModule: await cachedEngineModule() },
    translator: await translatorFor(config.engine),
    mailbox: new MailboxReceiver(data.mailbox),
    post,
  });
  runner.run();
} catch (error) {
  const { code, message, cause } = asSkepError(error);
  // The place of a fault of our own is worth more than a clean line.
  if (code === "internal" && process.env.SKEP_DEBUG !== undefined) console.error(cause);
  post({ type: "failed", code, message });
}
