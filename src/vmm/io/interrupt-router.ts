// The interrupt bus of a machine: takes messages of I/O APICs, MSIs and IPIs to the local APICs, and EOIs back to the I/O APICs.
// SDM Vol. 3A 11.6.2 (destinations, lowest priority delivery), 11.8.5 (EOI broadcast).

import type { Schema, Stateful } from "../state.ts";
import type { ApicBus, ApicPort } from "./apic-bus.ts";
import { DestinationMap } from "./destination.ts";
import { Shorthand } from "./icr.ts";
import { DeliveryMode, type InterruptMessage, type MessageSink } from "./interrupt-message.ts";

/** An I/O APIC, as the bus sees it. */
export interface EoiListener {
  endOfInterrupt(vector: number): void;
  /** See `ApicBus`. */
  watchedVector?(): number;
  watchedServed?(vector: number): void;
  /** Level-triggered messages that no local APIC accepted are to be sent again. */
  retry(): void;
}

export class InterruptRouter implements ApicBus, MessageSink, Stateful {
  readonly schema: Schema = {
    kind: "interrupt-router",
    version: 1,
    fields: { lastArbitrated: "u32" },
    derived: ["localApics", "ioApics", "map", "generation", "mapGeneration", "statistics"],
  };

  /** Position of the APIC that took the latest lowest-priority message: among equals the turn goes round. */
  private lastArbitrated = 0;

  private readonly localApics: ApicPort[] = [];
  private readonly ioApics: EoiListener[] = [];
  /** Made at the next message after a change of any identity. */
  private map: DestinationMap<ApicPort> | undefined;
  /** Counts changes of identities that other threads make; and where it stood when the map was made. */
  private generation: () => number;
  private mapGeneration = 0;
  readonly statistics = { messages: 0, undelivered: 0 };

  constructor(generation: () => number = () => 0) {
    this.generation = generation;
  }

  /** From now on the identities of local APICs may be changed by other threads, which count that. */
  follow(generation: () => number): void {
    this.generation = generation;
    this.map = undefined;
  }

  addLocalApic(apic: ApicPort): void {
    this.localApics.push(apic);
    this.map = undefined;
  }

  addIoApic(ioApic: EoiListener): void {
    this.ioApics.push(ioApic);
  }

  /** The local APICs that a destination names; those that are disabled are never among them. */
  targets(destination: number, logical: boolean, broadcast: number): readonly ApicPort[] {
    return this.destinations().find(destination, logical, broadcast);
  }

  send(message: InterruptMessage): boolean {
    const targets = this.targets(message.destination, message.logical, message.broadcast);
    return this.deliver(targets, message) > 0;
  }

  sendIpi(source: number, shorthand: number, message: InterruptMessage): void {
    let targets: readonly ApicPort[];
    if (shorthand === Shorthand.NONE) targets = this.targets(message.destination, message.logical, message.broadcast);
    else if (shorthand === Shorthand.ALL) targets = this.destinations().all();
    else if (shorthand === Shorthand.SELF)
      targets = this.destinations()
        .all()
        .filter((apic) => apic.id === source);
    else
      targets = this.destinations()
        .all()
        .filter((apic) => apic.id !== source);
    this.deliver(targets, message, true);
  }

  endOfInterrupt(vector: number): void {
    for (const ioApic of this.ioApics) ioApic.endOfInterrupt(vector);
  }

  /** Of the I/O APIC that has one. */
  watchedVector(): number {
    for (const ioApic of this.ioApics) {
      const vector = ioApic.watchedVector?.() ?? -1;
      if (vector >= 0) return vector;
    }
    return -1;
  }

  watchedServed(vector: number): void {
    for (const ioApic of this.ioApics) ioApic.watchedServed?.(vector);
  }

  identityChanged(): void {
    this.map = undefined;
  }

  acceptanceChanged(): void {
    for (const ioApic of this.ioApics) ioApic.retry();
  }

  /** Fires a local interrupt of every APIC; with `Lvt.LINT1` this is the system's NMI (SERR#, the front panel's button). */
  triggerLocal(lvt: number): void {
    for (const apic of this.localApics) apic.triggerLocal(lvt);
  }

  /** Asserts INIT# of every processor. */
  assertInit(): void {
    for (const apic of this.localApics) apic.assertInit();
  }

  /** Drives a local interrupt pin of every APIC: LINT0 is wired to the 8259's INTR in all of them (MP 1.4, virtual wire mode). */
  setLint(pin: 0 | 1, asserted: boolean): void {
    for (const apic of this.localApics) apic.setLint(pin, asserted);
  }

  private deliver(targets: readonly ApicPort[], message: InterruptMessage, isIpi = false): number {
    const { mode, vector, level } = message;
    const takers = mode === DeliveryMode.LOWEST_PRIORITY ? this.arbitrate(targets) : targets;
    let accepted = 0;
    for (const apic of takers) {
      if (!apic.deliver(mode, vector, level)) continue;
      accepted++;
      if (isIpi) apic.countIpi();
    }
    this.statistics.messages++;
    if (accepted === 0) this.statistics.undelivered++;
    return accepted;
  }

  /** The one that runs at the lowest priority, of those that accept interrupts at all (11.6.2.4). */
  private arbitrate(targets: readonly ApicPort[]): readonly ApicPort[] {
    const able = targets.filter((apic) => apic.softwareEnabled);
    if (able.length <= 1) return able;
    const count = this.localApics.length;
    const turn = (apic: ApicPort) => (this.localApics.indexOf(apic) - this.lastArbitrated - 1 + count) % count;
    let best = able[0];
    for (const apic of able) {
      const difference = apic.arbitrationPriority() - best.arbitrationPriority();
      if (difference < 0 || (difference === 0 && turn(apic) < turn(best))) best = apic;
    }
    this.lastArbitrated = this.localApics.indexOf(best);
    return [best];
  }

  private destinations(): DestinationMap<ApicPort> {
    const generation = this.generation();
    if (this.map === undefined || generation !== this.mapGeneration) {
      this.mapGeneration = generation;
      this.map = new DestinationMap(this.localApics);
    }
    return this.map;
  }
}
