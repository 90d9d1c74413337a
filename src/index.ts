// The public API: a virtual machine as an object. See docs/api.md.
//
// The machine runs in a thread of its own; everything here is messages to and from it, so that the program's event loop stays free.

import { type Console, ConsoleStreams } from "./console.ts";
import { SkepError, type SkepErrorCode } from "./errors.ts";
import type { DiskFile, FileSource } from "./host/node/machine-files.ts";
import { startMachineThread } from "./host/node/machine-thread.ts";
import type { MachineThread } from "./host/thread.ts";
import { machineConfig } from "./machine/config.ts";
import {
  type ControlAnswer,
  type ControlRequest,
  type IoApicPin,
  type IrqAction,
  type MachineStatus,
  readPieces,
  writePieces,
} from "./machine/control.ts";
import {
  CHANNEL,
  type Command,
  type CommandMessage,
  type ExitRecord,
  type FromMachine,
  MESSAGE,
} from "./machine/protocol.ts";
import type { Snapshot } from "./machine/snapshot.ts";
import type { MachineStatistics } from "./machine/statistics.ts";
import type { ApicDump, RegisterValues } from "./machine/vcpu-control.ts";

export type {
  ApicDump,
  Console,
  FileSource,
  IoApicPin,
  IrqAction,
  MachineStatistics,
  MachineStatus,
  RegisterValues,
  SkepErrorCode,
  Snapshot,
};
export { SkepError };

/** How a machine ended, and the exit status that the command gives for it. */
export type MachineExit = ExitRecord;

export interface DiskOptions {
  /** Path of a raw image, or its bytes: those are copied, and what the guest writes is lost with the machine. */
  readonly file: FileSource;
  readonly readOnly?: boolean;
  /** Up to 20 ASCII characters that the guest can ask for. */
  readonly serial?: string;
}

export interface ModuleOptions {
  readonly file: FileSource;
  /** What the kernel is given for it, after the name of the file. */
  readonly arguments?: string;
}

export interface VirtualMachineOptions {
  /** A Linux bzImage, a PVH or a Multiboot kernel: path or bytes. */
  readonly kernel: FileSource;
  /** The initramfs of a Linux kernel. */
  readonly initrd?: FileSource;
  readonly commandLine?: string;
  /** Modules of a Multiboot or PVH kernel. */
  readonly modules?: readonly ModuleOptions[];
  /** Bytes, or a number with K, M or G behind it; 512M by default. */
  readonly memory?: number | string;
  /** Virtual CPUs, 1 by default; or with how they are grouped, as `8,sockets=2,cores=2,threads=2`. */
  readonly cpus?: number | string;
  /** CPU model with features added and taken away, as `x86-64-v2,+movbe,-sse4_2`. */
  readonly cpu?: string;
  /** How guest code is executed: `translate`, which makes WebAssembly of what is hot, or `interpret`. */
  readonly engine?: string;
  /** `one` thread for all virtual CPUs in turn, or one for `each`, which machines with several have otherwise. */
  readonly threads?: string;
  /** What accesses to MSRs that the CPU has not do: `fault` (#GP, by default), or `ignore`: reads give zero, writes have no effect. */
  readonly unknownMsrs?: string;
  /** When all processors are halted with interrupts off: the machine's `end`, by default, or a `wait` for an NMI from outside. */
  readonly onHalt?: string;
  /** Virtual time while the machine is paused or the host sleeps: `freeze`, by default, or `catch-up` when it goes on. */
  readonly clock?: string;
  /** For finding faults of skep: what the machine does without, by the names that `skep run --help` lists. */
  readonly without?: readonly string[];
  /** For finding faults of skep: holds every execution of translated code, or one of so many, against the interpreter. */
  readonly checkRegions?: boolean | number;
  /** Counts where the guest spends its instructions; the functions come out of `traces` at the end. */
  readonly profile?: boolean;
  /** An ELF file or a System.map with names for the profile; without one the kernel's file or its own tables give them. */
  readonly symbols?: Uint8Array;
  /** Whether the translator's compiler has a `thread` of its own or works on the `same` as the guest. */
  readonly compiler?: string;
  /** Virtio disks, in order. */
  readonly disks?: readonly DiskOptions[];
  /** Serial ports, 1 to 4; 1 by default. */
  readonly serialPorts?: number;
  /** Lets the guest end the machine with a status of its own: true for port 0xf4, or a port. */
  readonly debugExit?: boolean | number;
  /** Kinds of events to trace (`skep run --help` lists them); they come out of `traces`. */
  readonly trace?: readonly string[];
  /** Time goes by instructions, random numbers come from a seed (true: 0): runs that start alike go on alike. */
  readonly deterministic?: boolean | number;
  /** What `snapshot` gave of a machine with the same options: the machine goes on from there instead of booting its kernel. */
  readonly snapshot?: Snapshot;
  /** Stops the machine when it fires. */
  readonly signal?: AbortSignal;
}

/** What `VirtualMachine` dispatches as `exit` event. */
export class ExitEvent extends Event {
  readonly exit: MachineExit;

  constructor(exit: MachineExit) {
    super("exit");
    this.exit = exit;
  }
}

/** What a reply brought, of what there can be in one. */
interface Reply {
  readonly statistics?: MachineStatistics;
  readonly answer?: ControlAnswer;
  readonly snapshot?: Snapshot;
}

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

type State = "created" | "running" | "paused" | "ended";

/** So long a thread has to answer a stop before it is ended from outside. */
const STOP_MILLISECONDS = 2000;
const encoder = new TextEncoder();

/**
 * One machine. It is created stopped, with its kernel loaded; `start` lets it run. It ends by itself, when the guest powers off, reboots,
 * halts or crashes, or by `stop`; `exited` tells how.
 */
export class VirtualMachine extends EventTarget implements AsyncDisposable {
  /** Resolves when the machine has ended, however that was; never rejects. */
  readonly exited: Promise<MachineExit>;
  private readonly consoles: ConsoleStreams[];
  private readonly thread: MachineThread;
  private readonly waiting = new Map<number, Waiting>();
  private readonly gone = Promise.withResolvers<void>();
  private readonly ready = Promise.withResolvers<void>();
  private readonly end = Promise.withResolvers<MachineExit>();
  private state: State = "created";
  private failure: SkepError | undefined;
  private lastStatistics: MachineStatistics | undefined;
  private nextId = 1;

  /** Makes a machine and loads its kernel. Rejects with a SkepError where that cannot be, or with the signal's reason. */
  static async create(options: VirtualMachineOptions): Promise<VirtualMachine> {
    options.signal?.throwIfAborted();
    const vm = new VirtualMachine(options);
    const { signal } = options;
    const abort = (): void => {
      void vm.stop();
    };
    signal?.addEventListener("abort", abort, { once: true });
    void vm.exited.then(() => signal?.removeEventListener("abort", abort));
    try {
      await vm.ready.promise;
      signal?.throwIfAborted();
      return vm;
    } catch (error) {
      await vm.stop();
      throw signal?.aborted ? signal.reason : error;
    }
  }

  private constructor(options: VirtualMachineOptions) {
    super();
    const { signal: _, kernel, initrd, commandLine, modules, disks, snapshot, ...machine } = options;
    // Checked here too, so that mistakes are found before a thread is made.
    machineConfig(machine);
    if (kernel === undefined) throw new SkepError("config", "a kernel is needed");
    this.exited = this.end.promise;
    // A failure to create is told by `create`.
    this.ready.promise.catch(() => undefined);
    this.thread = startMachineThread(
      {
        machine,
        kernel: {
          kernel,
          commandLine: commandLine ?? "",
          modules: (modules ?? []).map((module) => ({ file: module.file, arguments: module.arguments ?? "" })),
          ...(initrd === undefined ? {} : { initrd }),
        },
        disks: (disks ?? []).map((disk): DiskFile => ({ ...disk, readOnly: disk.readOnly ?? false })),
        ...(snapshot === undefined ? {} : { snapshot }),
      },
      { message: (message) => this.receive(message), gone: (error) => this.threadGone(error) },
    );
    this.consoles = Array.from(
      { length: CHANNEL.COUNT },
      (_, channel) => new ConsoleStreams(this.thread.mailbox, channel),
    );
  }

  /** The first serial port (COM1, /dev/ttyS0). */
  get serial(): Console {
    return this.serialPort(0);
  }

  /** A serial port by number, 0 for COM1. */
  serialPort(number: number): Console {
    if (!Number.isInteger(number) || number < 0 || number >= CHANNEL.CONSOLE)
      throw new SkepError("config", `there is no serial port ${number}`);
    return this.consoles[CHANNEL.SERIAL + number];
  }

  /** The virtio console (/dev/hvc0). */
  get console(): Console {
    return this.consoles[CHANNEL.CONSOLE];
  }

  /** Lines of the traces that were asked for. */
  get traces(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.consoles[CHANNEL.TRACE].readable;
  }

  /** Lets the machine run. */
  async start(): Promise<void> {
    if (this.state !== "created") throw new SkepError("state", `a machine that is ${this.state} cannot be started`);
    this.state = "running";
    await this.command("start");
  }

  /** Stops guest code and guest time. Done when the guest stands still. */
  async pause(): Promise<void> {
    if (this.state === "paused") return;
    if (this.state !== "running") throw new SkepError("state", `a machine that is ${this.state} cannot be paused`);
    this.state = "paused";
    await this.command("pause");
  }

  /** Goes on after `pause`; for the guest no time has passed. */
  async resume(): Promise<void> {
    if (this.state === "running") return;
    if (this.state !== "paused") throw new SkepError("state", `a machine that is ${this.state} cannot be resumed`);
    this.state = "running";
    await this.command("resume");
  }

  /** All of the machine but the contents of its disks, while it is not running: `create` makes machines that go on from there. */
  async snapshot(): Promise<Snapshot> {
    const { snapshot } = await this.command("snapshot");
    if (snapshot === undefined) throw new SkepError("state", "the machine has ended");
    return snapshot;
  }

  /** Like the reset button: power-on state, and the kernel is loaded anew. Disks keep what was written. */
  async reset(): Promise<void> {
    await this.command("reset");
  }

  /** Like a short press on the power button: the guest is asked to power off, if it listens. */
  async pressPowerButton(): Promise<void> {
    await this.command("power-button");
  }

  /** Ends the machine at once, as if its power were cut. Nothing happens where it has ended already. */
  async stop(): Promise<void> {
    if (this.state !== "ended") {
      // A thread that is still busy with building the machine, or does not come back, is ended from outside.
      const late = setTimeout(() => void this.thread.terminate(), STOP_MILLISECONDS);
      this.command("stop").catch(() => undefined);
      await this.gone.promise;
      clearTimeout(late);
    }
    await this.gone.promise;
  }

  /** Counters as they are now, or as they were at the end. */
  async statistics(): Promise<MachineStatistics> {
    const statistics = this.lastStatistics ?? (await this.command("statistics")).statistics;
    if (statistics === undefined) throw new SkepError("state", "the machine ended without leaving statistics");
    return statistics;
  }

  /** What the machine and its vCPUs are doing. */
  async status(): Promise<MachineStatus> {
    return (await this.control({ what: "status" })) as MachineStatus;
  }

  /** All registers of a vCPU, between two of its instructions; values are hexadecimal text. */
  async registers(cpu = 0): Promise<RegisterValues> {
    return (await this.control({ what: "vcpu", cpu, request: { what: "registers" } })) as RegisterValues;
  }

  /** Sets registers of a vCPU (names as `registers` gives them), all or none. The machine must not be running. */
  async setRegisters(values: RegisterValues, cpu = 0): Promise<void> {
    await this.control({ what: "vcpu", cpu, request: { what: "set-registers", values } });
  }

  /** A non-maskable interrupt to one vCPU or to all, as from the button on a front panel. */
  async nmi(cpu: number | "all" = "all"): Promise<void> {
    await this.control({ what: "vcpu", cpu, request: { what: "nmi" } });
  }

  /** Fires the local interrupt of a pin, LINT0 or LINT1, as its entry in the local vector table says. */
  async lint(pin: 0 | 1, cpu: number | "all" = "all"): Promise<void> {
    await this.control({ what: "vcpu", cpu, request: { what: "lint", pin } });
  }

  /**
   * Asserts an ISA interrupt line beside its devices, lets go of it, or both at once. An 8259 takes a line that falls before the guest has acknowledged
   * as spurious; for the I/O APIC a pulse is an edge.
   */
  async irq(irq: number, action: IrqAction): Promise<void> {
    await this.control({ what: "irq", irq, action });
  }

  /** Guest-physical memory. Bytes that are no RAM are refused. */
  readMemory(gpa: number, length: number): Promise<Uint8Array> {
    return readPieces((request) => this.control(request), gpa, length);
  }

  writeMemory(gpa: number, bytes: Uint8Array): Promise<void> {
    return writePieces((request) => this.control(request), gpa, bytes);
  }

  /** Registers of a vCPU's local APIC. */
  async localApic(cpu = 0): Promise<ApicDump> {
    return (await this.control({ what: "vcpu", cpu, request: { what: "apic" } })) as ApicDump;
  }

  /** The pins of the I/O APIC. */
  async ioApic(): Promise<readonly IoApicPin[]> {
    return (await this.control({ what: "ioapic" })) as readonly IoApicPin[];
  }

  /** Any request of src/machine/control.ts; the methods above are made of it. */
  async control(request: ControlRequest): Promise<ControlAnswer> {
    const { answer } = await this.command("control", request);
    if (answer === undefined) throw new SkepError("state", "the machine has ended");
    return answer;
  }

  /** For `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  private command(command: Command, request?: ControlRequest): Promise<Reply> {
    if (this.state === "ended") return Promise.reject(new SkepError("state", "the machine has ended"));
    const message: CommandMessage = {
      command,
      id: this.nextId++,
      ...(request === undefined ? {} : { request }),
    };
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.waiting.set(message.id, { resolve, reject });
    void this.thread.mailbox.send(MESSAGE.COMMAND, encoder.encode(JSON.stringify(message)));
    return promise;
  }

  private receive(message: FromMachine): void {
    switch (message.type) {
      case "ready":
        this.ready.resolve();
        break;
      case "failed":
        this.failure = new SkepError(message.code, message.message);
        break;
      case "output":
        this.consoles[message.channel].received(message.bytes);
        break;
      case "taken":
        this.consoles[message.channel].taken(message.bytes);
        break;
      case "reply":
        this.waiting.get(message.id)?.resolve(message);
        this.waiting.delete(message.id);
        break;
      case "refused":
        this.waiting.get(message.id)?.reject(new SkepError(message.code, message.message));
        this.waiting.delete(message.id);
        break;
      case "exit":
        this.lastStatistics = message.statistics;
        this.finish(message.exit);
        break;
    }
  }

  private threadGone(error: Error | undefined): void {
    const failure =
      this.failure ?? (error && new SkepError("internal", `internal error: ${error.message}`, { cause: error }));
    this.ready.reject(failure ?? new SkepError("state", "the machine was stopped while it was made"));
    if (failure === undefined) this.finish({ reason: "stopped", status: 4 });
    else this.finish({ reason: "error", status: 4, message: failure.message });
    this.gone.resolve();
  }

  private finish(exit: MachineExit): void {
    if (this.state === "ended") return;
    this.state = "ended";
    for (const console of this.consoles) console.end();
    for (const { resolve, reject } of this.waiting.values()) {
      if (exit.reason === "error") reject(new SkepError("internal", exit.message ?? "the machine failed"));
      else if (this.lastStatistics !== undefined) resolve({ statistics: this.lastStatistics });
      else reject(new SkepError("state", "the machine has ended"));
    }
    this.waiting.clear();
    this.end.resolve(exit);
    this.dispatchEvent(new ExitEvent(exit));
  }
}
