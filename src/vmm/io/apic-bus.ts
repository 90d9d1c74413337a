// What a local APIC is connected to: its vCPU, the interrupt bus, and what the bus sees of it. A bus names only `ApicPort`, so that a local
// APIC which another thread runs can stand behind a port of its own: attributes that are published in shared memory, and deliveries that are
// posted there (SDM Vol. 3C 30.6) and handed to the real one before its vCPU executes more.

import type { ApicIdentity } from "./destination.ts";
import type { InterruptMessage } from "./interrupt-message.ts";

/** What the local APIC tells its vCPU. None may call back into the APIC's registers; the vCPU acts before its next instruction. */
export interface VcpuEvents {
  /** `pendingVector` or `extIntPending` may have something: leave HLT and look. */
  interruptPending(): void;
  /** An NMI, which is an event class of its own and passes by the TPR. */
  nmi(): void;
  /** INIT. The vCPU resets itself when it takes it (in VMX root operation that is later) and calls `LocalApic.init` then. */
  init(): void;
  /** Start-up IPI for 4 KiB page `vector`. To be ignored unless the vCPU waits for one (9.4.3). */
  startup(vector: number): void;
}

/** What a local APIC needs of the others. */
export interface ApicBus {
  /** Sends to the destination in `message`, or to those that the shorthand names, seen from the APIC with id `source`. */
  sendIpi(source: number, shorthand: number, message: InterruptMessage): void;
  /** EOI of a level-triggered vector, for the I/O APICs. */
  endOfInterrupt(vector: number): void;
  /** The vector whose EOI somebody wants to know of although it is edge triggered (KVM's EOI exit bitmap), or -1. */
  watchedVector(): number;
  /** EOI of that one. */
  watchedServed(vector: number): void;
  /** Id, mode, LDR or DFR changed, or the APIC accepts interrupts no more. */
  identityChanged(): void;
  /** The APIC began to accept interrupts: messages that nobody took may find a taker. */
  acceptanceChanged(): void;
}

/** A local APIC as the bus sees it. */
export interface ApicPort extends ApicIdentity {
  /** Takes fixed interrupts: enabled globally and by software. */
  readonly softwareEnabled: boolean;
  /** What lowest-priority delivery compares (SDM Vol. 3A 11.6.2.4). */
  arbitrationPriority(): number;
  /** Hands over a message; true if the APIC accepts it. `mode` is a `DeliveryMode`, `level` the trigger mode of a fixed interrupt. */
  deliver(mode: number, vector: number, level: boolean): boolean;
  /** Drives the pins LINT0 (INTR) and LINT1 (NMI). */
  setLint(pin: 0 | 1, asserted: boolean): void;
  /** The INIT# pin, which works whatever state the APIC is in (SDM Vol. 3A 9.1). */
  assertInit(): void;
  /** Fires a local interrupt source (an entry of `Lvt`). */
  triggerLocal(lvt: number): void;
  /** An IPI was accepted, for the statistics. */
  countIpi(): void;
}
