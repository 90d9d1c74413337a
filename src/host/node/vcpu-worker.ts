// The worker that one vCPU of a machine runs in, where each has its own.

import { parentPort, workerData } from "node:worker_threads";
import { type MachineRequest, machineConfig } from "../../machine/config.ts";
import { VcpuThread } from "../../machine/parallel/vcpu-thread.ts";
import type { VcpuThreadParts } from "../../machine/protocol.ts";
import { webHost } from "../host.ts";
import type { CompilerConnection } from "./compiler-connection.ts";
import { translatorFor } from "./translator.ts";

/** What it works with comes as its one message (`VcpuThreadParts`), so that it can be started before that is known. */
export interface VcpuWorkerData {
  readonly id: number;
  readonly machine: MachineRequest;
  /** To the compiler, where that has a thread. */
  readonly compiler?: readonly CompilerConnection[];
}

const { machine, compiler } = workerData as VcpuWorkerData;
const config = machineConfig(machine);
const translator = await translatorFor(config, compiler);
const parts = await new Promise<VcpuThreadParts>((resolve) => parentPort?.once("message", resolve));
new VcpuThread({ parts, config, translator, host: webHost, post: (message) => parentPort?.postMessage(message) }).run();
