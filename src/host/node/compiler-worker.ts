// The worker that makes modules of regions for all vCPUs of a machine (docs/engine.md).

import { parentPort } from "node:worker_threads";
import type { Compiler } from "../../cpu/translator/compiler.ts";
import { unpackRequest } from "../../cpu/translator/packed-request.ts";
import { standardCompiler } from "../../cpu/translator/standard-compiler.ts";
import type { CompilerConnection, ToCompiler } from "./compiler-connection.ts";

let compiler: Compiler | undefined;
let scheduled = false;

/** After what has come in meanwhile, so that a module gets as many regions as there are. */
function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  setImmediate(() => {
    scheduled = false;
    if (compiler?.work() === true) schedule();
  });
}

parentPort?.on("message", ({ port, posted }: CompilerConnection) => {
  const client = {
    reply: (reply: unknown): void => {
      port.postMessage(reply);
      Atomics.add(posted, 0, 1);
    },
  };
  port.on("message", (message: ToCompiler) => {
    if (message.kind === "open") compiler ??= standardCompiler(message.constants);
    else compiler?.request(client, unpackRequest(message.request));
    schedule();
  });
});
