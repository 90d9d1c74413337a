// A machine's threads in Node: workers of node:worker_threads. One runs the machine, or its devices; vCPUs that have a thread each get theirs
// when the first asks for it. They end together: where one fails, the others are of no use.

import { Worker } from "node:worker_threads";
import type { FromMachine, SpawnMessage } from "../../machine/protocol.ts";
import { MailboxSender } from "../mailbox.ts";
import type { MachineThread, ThreadEvents } from "../thread.ts";
import type { MachineWorkerData } from "./machine-worker.ts";
import type { VcpuWorkerData } from "./vcpu-worker.ts";

class MachineWorkers {
  private readonly data: MachineWorkerData;
  private readonly events: ThreadEvents;
  private readonly machine: Worker;
  private readonly vcpus = new Set<Worker>();
  private machineGone = false;
  private failure: Error | undefined;
  /** The machine's last message, which comes after what its vCPUs have to say. */
  private last: FromMachine | undefined;

  constructor(data: MachineWorkerData, events: ThreadEvents) {
    this.data = data;
    this.events = events;
    this.machine = new Worker(new URL("./machine-worker.ts", import.meta.url), { workerData: data });
    this.machine.on("message", (message: FromMachine | SpawnMessage) => this.receive(message));
    this.machine.on("error", (error: Error) => this.failed(error));
    this.machine.on("exit", () => {
      this.machineGone = true;
      for (const worker of this.vcpus) void worker.terminate();
      this.check();
    });
  }

  terminate(): void {
    void this.machine.terminate();
    for (const worker of this.vcpus) void worker.terminate();
  }

  private receive(message: FromMachine | SpawnMessage): void {
    if (message.type === "spawn") this.spawn(message);
    else if (message.type === "exit") {
      this.last = message;
      this.check();
    } else this.events.message(message);
  }

  private spawn({ parts }: SpawnMessage): void {
    if (this.machineGone || this.failure !== undefined) return;
    const workerData: VcpuWorkerData = { parts, machine: this.data.machine };
    const worker = new Worker(new URL("./vcpu-worker.ts", import.meta.url), { workerData });
    this.vcpus.add(worker);
    worker.on("message", (message: FromMachine) => this.events.message(message));
    worker.on("error", (error: Error) => {
      this.failed(new Error(`vCPU ${parts.id}: ${error.message}`, { cause: error }));
    });
    worker.on("exit", () => {
      this.vcpus.delete(worker);
      this.check();
    });
  }

  private failed(error: Error): void {
    this.failure ??= error;
    this.terminate();
  }

  private check(): void {
    if (this.vcpus.size > 0) return;
    if (this.last !== undefined) this.events.message(this.last);
    this.last = undefined;
    if (this.machineGone) this.events.gone(this.failure);
  }
}

export function startMachineThread(data: Omit<MachineWorkerData, "mailbox">, events: ThreadEvents): MachineThread {
  const mailbox = new MailboxSender();
  const workers = new MachineWorkers({ ...data, mailbox: mailbox.memory }, events);
  return {
    mailbox,
    async terminate() {
      workers.terminate();
    },
  };
}
