// The worker that one vCPU of a machine runs in, where each has its own.

import { parentPort, workerData } from "node:worker_threads";
import { type MachineRequest, machineConfig } from "../../machine/config.ts";
import { VcpuThread } from "../../machine/parallel/vcpu-thread.ts";
import type { VcpuThreadParts } from "../../machine/protocol.ts";
import { webHost } from "../host.ts";
import { translatorFor } from "./translator.ts";

export interface VcpuWorkerData {
  readonly parts: VcpuThreadParts;
  readonly machine: MachineRequest;
}

const { parts, machine } = workerData as VcpuWorkerData;
const config = machineConfig(machine);
const translator = await translatorFor(config.engine);
new VcpuThread({ parts, config, translator, host: webHost, post: (message) => parentPort?.postMessage(message) }).run();
