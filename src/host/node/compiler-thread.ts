// The thread of a machine's compiler, as those see it who start the machine's threads.

import { MessageChannel, Worker } from "node:worker_threads";
import type { CompilerConnection } from "./compiler-connection.ts";

/** What is written is soon garbage; with V8's own limit it takes 48 MB at times. */
const YOUNG_MB = 12;

export class CompilerThread {
  private readonly worker: Worker;

  constructor(failed: (error: Error) => void) {
    this.worker = new Worker(new URL("./compiler-worker.ts", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.worker.on("error", failed);
  }

  /** A connection for one more vCPU. Its port is to be transferred to the vCPU's thread. */
  connect(): CompilerConnection {
    const { port1, port2 } = new MessageChannel();
    const posted = new Int32Array(new SharedArrayBuffer(4));
    this.worker.postMessage({ port: port1, posted } satisfies CompilerConnection, [port1]);
    return { port: port2, posted };
  }

  terminate(): void {
    void this.worker.terminate();
  }
}
