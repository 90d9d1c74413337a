// A machine's thread in Node: a worker of node:worker_threads.

import { Worker } from "node:worker_threads";
import type { FromMachine } from "../../machine/protocol.ts";
import { MailboxSender } from "../mailbox.ts";
import type { MachineThread, ThreadEvents } from "../thread.ts";
import type { MachineWorkerData } from "./machine-worker.ts";

export function startMachineThread(data: Omit<MachineWorkerData, "mailbox">, events: ThreadEvents): MachineThread {
  const mailbox = new MailboxSender();
  const workerData: MachineWorkerData = { ...data, mailbox: mailbox.memory };
  const worker = new Worker(new URL("./machine-worker.ts", import.meta.url), { workerData });
  let failure: Error | undefined;
  worker.on("message", (message: FromMachine) => events.message(message));
  worker.on("error", (error: Error) => {
    failure = error;
  });
  worker.on("exit", () => events.gone(failure));
  return {
    mailbox,
    async terminate() {
      await worker.terminate();
    },
  };
}
