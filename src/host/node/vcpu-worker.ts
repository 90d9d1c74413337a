// The worker that one vCPU of a machine runs in, where each has its own.

import { parentPort, workerData } from "node:worker_threads";
import { type MachineRequest, machineConfig } from "../../machine/config.ts";
import { VcpuThread } from "../../machine/parallel/vcpu-thread.ts";
import type { VcpuThreadParts } from "../../machine/protocol.ts";
import { webHost } from "../host.ts";
import type { CompilerConnection } from "./compiler-connection.ts";
import { translatorFor } from "./translator.ts";

export interface VcpuWorkerData {
  readonly parts: VcpuThreadParts;
  readonly machine: MachineRequest;
  /** To the compiler, where that has a thread. */
  readonly compiler?: readonly CompilerConnection[];
}

const { parts, machine, compiler } = workerData as VcpuWorkerData;
const config = machineConfig(machine);
const translator = await translatorFor(config.engine, compiler);
new VcpuThread({ parts, config, translator, host: webHost, post: (message) => parentPort?.postMessage(message) }).run();
