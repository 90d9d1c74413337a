// A thread of a vCPU that the host is slow to start, but for the first one's.

import { workerData } from "node:worker_threads";
import type { VcpuWorkerData } from "../../src/host/node/vcpu-worker.ts";

const SECONDS = 5;

if ((workerData as VcpuWorkerData).id > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SECONDS * 1000);
await import("../../src/host/node/vcpu-worker.ts");
