// What can be asked of a machine from outside beyond starting and stopping it: state, guest memory, interrupt controllers (bhyve's bhyvectl).
// Requests and answers are plain JSON.

import type { CpuTopology } from "../cpu/topology.ts";
import { SkepError } from "../errors.ts";
import { destinationOf } from "../vmm/io/ioapic.ts";
import { saveState } from "../vmm/state.ts";
import {
  type Assist,
  type ClockPolicy,
  type CompilerPlace,
  compilerPlace,
  type EngineName,
  type MachineConfig,
  type OnHalt,
  type Threads,
} from "./config.ts";
import { bytesOfHex, hexOfBytes } from "./hexadecimal.ts";
import type { Pc } from "./pc.ts";
import type { VcpuAnswer, VcpuRequest, VcpuStatus } from "./vcpu-control.ts";

export type ControlRequest =
  | { readonly what: "status" }
  /** A request to one vCPU, or to all. */
  | { readonly what: "vcpu"; readonly cpu: number | "all"; readonly request: VcpuRequest }
  | { readonly what: "read-memory"; readonly gpa: number; readonly length: number }
  /** Bytes in hexadecimal. */
  | { readonly what: "write-memory"; readonly gpa: number; readonly bytes: string }
  | { readonly what: "ioapic" }
  /** Drives an ISA interrupt line beside its devices (bhyve's vm_isa_assert_irq, vm_isa_deassert_irq, vm_isa_pulse_irq). */
  | { readonly what: "irq"; readonly irq: number; readonly action: IrqAction };

export const IRQ_ACTIONS = ["assert", "deassert", "pulse"] as const;
export type IrqAction = (typeof IRQ_ACTIONS)[number];

/** What a machine uses, whether it was asked for or is what machines have otherwise. */
export interface MachineInUse {
  readonly engine: EngineName;
  /** Where hot code is translated, if it is. */
  readonly compiler?: CompilerPlace;
  readonly threads: Threads;
  /** The seed of a deterministic machine. */
  readonly seed?: number;
  /** The CPU model with its flags. */
  readonly cpu: string;
  readonly topology: CpuTopology;
  /** There are APIC ids of more than eight bits: processors are in x2APIC mode from the start. */
  readonly x2apicIds: boolean;
  readonly onHalt: OnHalt;
  readonly clock: ClockPolicy;
  /** What it does without (`ASSISTS`). */
  readonly without: readonly Assist[];
}

export interface MachineStatus extends MachineInUse {
  readonly state: "created" | "running" | "paused";
  /** Virtual nanoseconds since the machine was created. */
  readonly timeNs: number;
  readonly memoryBytes: number;
  /** Threads that execute guest code: where each vCPU has its own, those that the guest has not started have none. */
  readonly vcpuThreads: number;
  readonly vcpus: readonly VcpuStatus[];
}

export interface IoApicPin {
  readonly pin: number;
  readonly vector: number;
  /** By the names of the 82093AA data sheet, 3.2.4. */
  readonly deliveryMode: string;
  readonly destination: number;
  readonly logical: boolean;
  readonly trigger: "edge" | "level";
  readonly activeLow: boolean;
  readonly masked: boolean;
  readonly remoteIrr: boolean;
  readonly deliveryPending: boolean;
  /** How many sources assert the pin. */
  readonly assertions: number;
}

export type ControlAnswer =
  | MachineStatus
  | VcpuAnswer
  | readonly VcpuAnswer[]
  | readonly IoApicPin[]
  | { readonly bytes: string };

/** Longest piece of memory of one request, in bytes: the mailbox has room for it, and nobody waits long. */
export const MEMORY_PIECE = 16384;

const DELIVERY_MODES = ["fixed", "lowest-priority", "smi", "reserved", "nmi", "init", "reserved", "extint"];

function dumpIoApic(pc: Pc): readonly IoApicPin[] {
  const { fields } = saveState(pc.ioapic);
  const entries = fields.entries as Uint32Array;
  const assertions = fields.assertions as Uint32Array;
  return Array.from(assertions, (count, pin) => {
    const low = entries[pin * 2];
    return {
      pin,
      vector: low & 0xff,
      deliveryMode: DELIVERY_MODES[(low >> 8) & 7],
      destination: destinationOf(entries[pin * 2 + 1]),
      logical: (low & (1 << 11)) !== 0,
      trigger: (low & (1 << 15)) !== 0 ? ("level" as const) : ("edge" as const),
      activeLow: (low & (1 << 13)) !== 0,
      masked: (low & (1 << 16)) !== 0,
      remoteIrr: (low & (1 << 14)) !== 0,
      deliveryPending: (low & (1 << 12)) !== 0,
      assertions: count,
    };
  });
}

function driveIrq(pc: Pc, irq: number, action: IrqAction): void {
  const line = Number.isInteger(irq) ? pc.isaLines[irq] : undefined;
  if (line === undefined)
    throw new SkepError("config", `there is no ISA interrupt line ${irq}: they are 0, 1 and 3 to 15`);
  if (!IRQ_ACTIONS.includes(action)) throw new SkepError("config", `a line can be told to ${IRQ_ACTIONS.join(", ")}`);
  if (action !== "deassert") line.set(true);
  if (action !== "assert") line.set(false);
}

/** Who answers requests: a machine, or the socket of one. */
type Ask = (request: ControlRequest) => Promise<unknown>;

/** Guest-physical memory of any length, asked for piece by piece. */
export async function readPieces(ask: Ask, gpa: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += MEMORY_PIECE) {
    const piece = Math.min(MEMORY_PIECE, length - at);
    const answer = (await ask({ what: "read-memory", gpa: gpa + at, length: piece })) as { bytes: string };
    bytes.set(bytesOfHex(answer.bytes) ?? [], at);
  }
  return bytes;
}

export async function writePieces(ask: Ask, gpa: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; at += MEMORY_PIECE) {
    const piece = hexOfBytes(bytes.subarray(at, at + MEMORY_PIECE));
    await ask({ what: "write-memory", gpa: gpa + at, bytes: piece });
  }
}

function memoryRange(gpa: number, length: number): void {
  if (!Number.isSafeInteger(gpa) || gpa < 0 || !Number.isInteger(length) || length < 1 || length > MEMORY_PIECE)
    throw new SkepError("config", `a piece of memory is 1 to ${MEMORY_PIECE} bytes at an address that is not negative`);
}

function noRam(gpa: number, length: number): SkepError {
  return new SkepError("config", `not all of the ${length} bytes at 0x${gpa.toString(16)} are RAM`);
}

function inUse(config: MachineConfig): MachineInUse {
  const { engine, threads, seed, cpu, topology, x2apicIds, onHalt, clock, without } = config;
  const compiler = compilerPlace(config);
  return {
    engine,
    ...(compiler === undefined ? {} : { compiler }),
    threads,
    ...(seed === undefined ? {} : { seed }),
    cpu: cpu.name,
    topology,
    x2apicIds,
    onHalt,
    clock,
    without,
  };
}

/** Answers a request; `state` is what the owner knows of the machine. A request that cannot be met is a SkepError. */
export function answerControl(pc: Pc, request: ControlRequest, state: MachineStatus["state"]): ControlAnswer {
  const { processors } = pc;
  const all = (request: VcpuRequest): VcpuAnswer[] => processors.apicIds.map((_, n) => processors.answer(n, request));
  switch (request.what) {
    case "status":
      return {
        state,
        timeNs: pc.vm.clock.now(),
        memoryBytes: pc.memory.bytes,
        ...inUse(pc.config),
        vcpuThreads: processors.threads,
        vcpus: all({ what: "vcpu-status" }) as VcpuStatus[],
      };
    case "vcpu": {
      if (request.request.what === "set-registers" && state === "running")
        throw new SkepError("state", "registers can be set while the machine is paused");
      return request.cpu === "all" ? all(request.request) : processors.answer(request.cpu, request.request);
    }
    case "read-memory": {
      const { gpa, length } = request;
      memoryRange(gpa, length);
      const view = pc.memory.view(gpa, length);
      if (view === undefined) throw noRam(gpa, length);
      return { bytes: hexOfBytes(view) };
    }
    case "write-memory": {
      const { gpa } = request;
      const bytes = bytesOfHex(request.bytes);
      if (bytes === undefined) throw new SkepError("config", "the bytes to write are no hexadecimal text");
      memoryRange(gpa, bytes.length);
      const view = pc.memory.writableView(gpa, bytes.length);
      if (view === undefined) throw noRam(gpa, bytes.length);
      view.set(bytes);
      pc.memory.written(gpa, bytes.length);
      return { done: true };
    }
    case "ioapic":
      return dumpIoApic(pc);
    case "irq":
      driveIrq(pc, request.irq, request.action);
      return { done: true };
    default:
      throw new SkepError("config", "there is no such control request");
  }
}
