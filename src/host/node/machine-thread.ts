// A machine's threads in Node: workers of node:worker_threads. One runs the machine, or its devices; vCPUs that have a thread each get theirs
// when the first asks for it. They end together: where one fails, the others are of no use.

import { Worker } from "node:worker_threads";
import { machineConfig } from "../../machine/config.ts";
import type { FromMachine, SpawnMessage } from "../../machine/protocol.ts";
import { MailboxSender } from "../mailbox.ts";
import type { MachineThread, ThreadEvents } from "../thread.ts";
import type { CompilerConnection } from "./compiler-connection.ts";
import { CompilerThread } from "./compiler-thread.ts";
import type { MachineWorkerData } from "./machine-worker.ts";
import type { VcpuWorkerData } from "./vcpu-worker.ts";

/** Little is allocated while a guest runs. */
const YOUNG_MB = 6;

class MachineWorkers {
  private readonly data: MachineWorkerData;
  private readonly vcpuWorker: URL;
  private readonly events: ThreadEvents;
  private readonly machine: Worker;
  private readonly compiler: CompilerThread | undefined;
  private readonly vcpus = new Set<Worker>();
  /** The bootstrap processor's, which is started with the machine's: each takes a fifth of a second to load what it consists of. */
  private readonly bootstrap: Worker | undefined;
  private machineGone = false;
  private failure: Error | undefined;
  /** The machine's last message, which comes after what its vCPUs have to say. */
  private last: FromMachine | undefined;

  constructor(data: MachineWorkerData, events: ThreadEvents, vcpuWorker: URL) {
    this.data = data;
    this.vcpuWorker = vcpuWorker;
    this.events = events;
    const { engine, compiler, threads, cpus } = machineConfig(data.machine);
    if (engine === "translate" && compiler === "thread") {
      this.compiler = new CompilerThread((error) => {
        this.failed(new Error(`the compiler: ${error.message}`, { cause: error }));
      });
    }
    const connections = threads === "one" ? this.connect(cpus) : undefined;
    const workerData: MachineWorkerData = connections === undefined ? data : { ...data, compiler: connections };
    this.machine = new Worker(new URL("./machine-worker.ts", import.meta.url), {
      workerData,
      transferList: connections?.map(({ port }) => port) ?? [],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
      name: "machine",
    });
    this.bootstrap = threads === "each" ? this.startVcpu(0) : undefined;
    this.machine.on("message", (message: FromMachine | SpawnMessage) => this.receive(message));
    this.machine.on("error", (error: Error) => this.failed(error));
    this.machine.on("exit", () => {
      this.machineGone = true;
      this.compiler?.terminate();
      for (const worker of this.vcpus) void worker.terminate();
      this.check();
    });
  }

  terminate(): void {
    void this.machine.terminate();
    this.compiler?.terminate();
    for (const worker of this.vcpus) void worker.terminate();
  }

  /** Connections of so many vCPUs to the compiler, where it has a thread. */
  private connect(vcpus: number): CompilerConnection[] | undefined {
    const { compiler } = this;
    return compiler === undefined ? undefined : Array.from({ length: vcpus }, () => compiler.connect());
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
    const worker = parts.id === 0 ? this.bootstrap : this.startVcpu(parts.id);
    worker?.postMessage(parts);
  }

  private startVcpu(id: number): Worker {
    const connections = this.connect(1);
    const workerData: VcpuWorkerData = {
      id,
      machine: this.data.machine,
      ...(connections === undefined ? {} : { compiler: connections }),
    };
    const worker = new Worker(this.vcpuWorker, {
      workerData,
      transferList: connections?.map(({ port }) => port) ?? [],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
      // Also the name of the host's thread, by which it can be pinned.
      name: `vcpu${id}`,
    });
    this.vcpus.add(worker);
    worker.on("message", (message: FromMachine) => this.events.message(message));
    worker.on("error", (error: Error) => {
      this.failed(new Error(`vCPU ${id}: ${error.message}`, { cause: error }));
    });
    worker.on("exit", () => {
      this.vcpus.delete(worker);
      this.check();
    });
    return worker;
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

/** `vcpuWorker`: what a thread of a vCPU runs. */
export function startMachineThread(
  data: Omit<MachineWorkerData, "mailbox">,
  events: ThreadEvents,
  vcpuWorker: URL = new URL("./vcpu-worker.ts", import.meta.url),
): MachineThread {
  const mailbox = new MailboxSender();
  const workers = new MachineWorkers({ ...data, mailbox: mailbox.memory }, events, vcpuWorker);
  return {
    mailbox,
    async terminate() {
      workers.terminate();
    },
  };
}
