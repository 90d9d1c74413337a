// The seam between the core and whatever executes guest code (bhyve's vmm_ops): run until an exit, registers, invalidation.
// The core never sees how guest code is executed; the engine never sees interrupt controllers, devices or clocks.

import type { Field } from "../isa/state.ts";
import type { Section } from "./state.ts";

/** What the engine asks of the core while an instruction executes: exits that are answered in place. All integers are unsigned 32-bit numbers. */
export interface EngineHost {
  portIn(port: number, bytes: number): number;
  portOut(port: number, bytes: number, value: number): void;
  /** An access that hit no RAM; `bytes` is 1, 2 or 4, the address the two halves of the GPA. */
  mmioRead(gpaLow: number, gpaHigh: number, bytes: number): number;
  mmioWrite(gpaLow: number, gpaHigh: number, bytes: number, value: number): void;
  /** An MSR that is no plain storage; undefined raises #GP. Low and high half. */
  readMsr(msr: number): readonly [low: number, high: number] | undefined;
  /** False raises #GP. */
  writeMsr(msr: number, low: number, high: number): boolean;
  /** Ticks of the TSC since the machine's creation, before the guest's offset; an integer below 2^53. */
  tscNow(): number;
  readCr8(): number;
  writeCr8(value: number): void;
  random32(): number;
  /** A page of host memory is to have its first translated code: no other vCPU may write there any more without asking. Returns when every other
   *  has done `Engine.protectPage`, or will before it executes anything; requests to this vCPU may be served meanwhile. */
  protectPage(page: number): void;
  /** This vCPU wrote where some vCPU has translated code; it has dropped its own, the others must do `Engine.codeWritten`. To be posted, and those
   *  that run kicked, before it returns; it must wait for nobody. */
  codeWritten(host: number, length: number): void;
  /** Asked at each entry, when kicks (src/cpu/kick.ts) count already: true where something has been posted to this vCPU that it shall look at before
   *  it executes anything. Without it nobody posts. */
  readonly requested?: (() => boolean) | undefined;
  /** ANOMALY number of src/isa/anomaly.ts and an argument. */
  anomaly(what: number, argument: number): void;
}

/** A range of guest-physical memory that is backed by host memory. Addresses and lengths are multiples of 4 KiB. */
export interface MemorySlot {
  readonly gpa: number;
  readonly length: number;
  /** Offset in the memory that holds guest RAM. */
  readonly host: number;
  readonly writable: boolean;
}

/** Pending events that make the engine leave at the next instruction boundary where the guest accepts them. */
export const EVENT = { INTERRUPT: 1, NMI: 2 } as const;

/** Kinds of events that the core injects. */
export const INJECT = { INTERRUPT: 0, NMI: 2 } as const;

export interface EngineStatistics {
  readonly [name: string]: number;
}

/** One vCPU's executor. */
export interface Engine {
  /** Runs about `budget` instructions at most, or until the guest has executed PAUSE `pauses` times where that is not 0; gives an EXIT reason
   *  (src/isa/exit.ts). All guest state is in the registers then. */
  run(budget: number, pauses?: number): number;
  /** Makes a run in progress (on this thread, from within an EngineHost call) return soon. */
  requestExit(): void;
  /** Tells which events wait (EVENT bits). The run loop gives EXIT.INTERRUPT_WINDOW as soon as one can be accepted. */
  setPendingEvents(events: number): void;
  /** True where an event of this kind can be injected at once: interrupts need RFLAGS.IF, neither is possible in an interrupt shadow. */
  canInject(kind: number): boolean;
  /** Delivers an external interrupt (vector) or NMI at the present instruction boundary. A halted vCPU runs again. False where delivery ended in shutdown. */
  inject(kind: number, vector: number): boolean;

  /** Register access while not running. i32 fields are numbers (unsigned), i64 fields bigints (unsigned). */
  get(field: Field): number | bigint;
  set(field: Field, value: number | bigint): void;
  gpr(number: number): bigint;
  setGpr(number: number, value: bigint): void;
  /** The whole RFLAGS. */
  rflags(): number;
  setRflags(value: number): void;
  /** To be called after `set` of control registers, segments, CPL or EFER: recomputes what depends on them and empties the TLB. */
  registersChanged(): void;
  /** Architectural reset (SDM Vol. 3A Table 10-1); INIT keeps what INIT keeps. */
  reset(kind: "power-on" | "init"): void;

  /** Guest memory at these host bytes was written from outside (DMA, loader): translated code there is dropped. */
  memoryWritten(host: number, length: number): void;
  /** Another vCPU has translated code in a page of host memory: stores to it go the slow way from now on. */
  protectPage(page: number): void;
  /** Another vCPU wrote to translated code: what this one has in those pages is dropped. */
  codeWritten(host: number, length: number): void;
  /** The same for all of memory: stores anywhere ask again, and no translated code is left. */
  protectAll(): void;
  dropCode(): void;
  setSlots(slots: readonly MemorySlot[]): void;
  /** Guest-physical address of a linear address with supervisor rights, or -1; changes nothing. */
  translate(linear: bigint): number;

  /** Instructions retired, a run in progress included: there by whole blocks, counted where they are entered. */
  retired(): number;
  statistics(): EngineStatistics;
  save(): Section;
  /** Throws a StateError where no processor of this model would be in such a state. */
  check(section: Section): void;
  restore(section: Section): void;
}
