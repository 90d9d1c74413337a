// The local vector table and the two local interrupt pins of a local APIC.
// SDM Vol. 3A 11.5.1 (local vector table), 11.5.2 (valid vectors), 11.4.7 (state after reset and software disable).

import type { Schema, Stateful } from "../state.ts";
import { DeliveryMode } from "./interrupt-message.ts";
import { LVT_COUNT, LVT_LEVEL_TRIGGERED, LVT_MASKED, LVT_REMOTE_IRR, LVT_RESET, Lvt } from "./lapic-registers.ts";

/** Where a local interrupt goes: the local APIC that has the table. */
export interface LocalInterruptSink {
  /** `fromErrorLvt`: the request comes from the error entry, so an illegal vector must not raise the error again. */
  requestVector(vector: number, level: boolean, fromErrorLvt: boolean): boolean;
  /** NMI, SMI and INIT. */
  deliver(mode: number, vector: number, level: boolean): boolean;
  /** An ExtINT pin has begun to be asserted or to be let through. */
  extInt(): void;
  anomaly(what: string): void;
}

/** Delivery modes that an entry allows, as a set of bits (11.5.1): only the LINT pins carry INIT and ExtINT. */
const FIXED_ONLY = 1 << DeliveryMode.FIXED;
const COMMON_MODES = FIXED_ONLY | (1 << DeliveryMode.SMI) | (1 << DeliveryMode.NMI);
const LINT_MODES = COMMON_MODES | (1 << DeliveryMode.INIT) | (1 << DeliveryMode.EXTINT);
const ALLOWED_MODES: { readonly [lvt: number]: number } = {
  [Lvt.TIMER]: FIXED_ONLY,
  [Lvt.THERMAL]: COMMON_MODES,
  [Lvt.PERFORMANCE]: COMMON_MODES,
  [Lvt.LINT0]: LINT_MODES,
  [Lvt.LINT1]: LINT_MODES,
  [Lvt.ERROR]: FIXED_ONLY,
  [Lvt.CMCI]: COMMON_MODES,
};

function modeOf(entry: number): number {
  return (entry >>> 8) & 7;
}

/** Only LINT0 can be level sensitive, and only in fixed mode does the bit count (11.5.1, trigger mode). */
function isLevelSensitive(lvt: number, entry: number): boolean {
  return lvt === Lvt.LINT0 && modeOf(entry) === DeliveryMode.FIXED && (entry & LVT_LEVEL_TRIGGERED) !== 0;
}

export const LOCAL_VECTOR_TABLE_SCHEMA: Schema = {
  kind: "lapic-lvt",
  version: 1,
  fields: { entries: "words", lint0: "bool", lint1: "bool" },
  derived: ["sink"],
};

export class LocalVectorTable implements Stateful {
  readonly schema = LOCAL_VECTOR_TABLE_SCHEMA;

  private readonly entries = new Uint32Array(LVT_COUNT).fill(LVT_RESET);
  /** Levels of the pins; they are wires, which no reset of the APIC touches. Asserted is asserted whatever the polarity bit says. */
  lint0 = false;
  lint1 = false;
  private readonly sink: LocalInterruptSink;

  constructor(sink: LocalInterruptSink) {
    this.sink = sink;
  }

  reset(): void {
    this.entries.fill(LVT_RESET);
  }

  read(lvt: number): number {
    return this.entries[lvt];
  }

  write(lvt: number, value: number): void {
    // An entry keeps its remote IRR only as long as it describes what the EOI is awaited for.
    const kept = isLevelSensitive(lvt, value) ? this.entries[lvt] & LVT_REMOTE_IRR : 0;
    this.entries[lvt] = value | kept;
    this.sample(lvt);
  }

  /** Software disable (11.4.7.2). */
  maskAll(): void {
    for (let lvt = 0; lvt < LVT_COUNT; lvt++) this.entries[lvt] |= LVT_MASKED;
  }

  /** Notes the level of a pin; true if that made it asserted. */
  setPin(pin: 0 | 1, asserted: boolean): boolean {
    const before = pin === 0 ? this.lint0 : this.lint1;
    if (pin === 0) this.lint0 = asserted;
    else this.lint1 = asserted;
    return asserted && !before;
  }

  /** Whether an asserted pin passes as ExtINT: the 8259's INTR in virtual wire mode. */
  passesExtInt(): boolean {
    return (this.lint0 && this.isExtInt(Lvt.LINT0)) || (this.lint1 && this.isExtInt(Lvt.LINT1));
  }

  /** Whether an entry lets its source through as ExtINT, which only the LINT pins carry. */
  isExtInt(lvt: number): boolean {
    const entry = this.entries[lvt];
    return (lvt === Lvt.LINT0 || lvt === Lvt.LINT1) && !(entry & LVT_MASKED) && modeOf(entry) === DeliveryMode.EXTINT;
  }

  /** The entry's source has an interrupt. True if it was delivered. */
  fire(lvt: number): boolean {
    const entry = this.entries[lvt];
    if (entry & LVT_MASKED) return false;
    // 11.5.1: the performance counter entry masks itself when it fires.
    if (lvt === Lvt.PERFORMANCE) this.entries[lvt] |= LVT_MASKED;
    const mode = modeOf(entry);
    if (!(ALLOWED_MODES[lvt] & (1 << mode))) {
      this.sink.anomaly(`delivery mode ${mode} in LVT entry ${lvt}`);
      return false;
    }
    if (mode === DeliveryMode.EXTINT) {
      this.sink.extInt();
      return true;
    }
    if (mode !== DeliveryMode.FIXED) return this.sink.deliver(mode, entry & 0xff, false);
    const level = isLevelSensitive(lvt, entry);
    if (level && entry & LVT_REMOTE_IRR) return false;
    const accepted = this.sink.requestVector(entry & 0xff, level, lvt === Lvt.ERROR);
    if (accepted && level) this.entries[lvt] |= LVT_REMOTE_IRR;
    return accepted;
  }

  /** EOI of a level-triggered vector: LINT0 is taken again if it is still asserted. */
  endOfInterrupt(vector: number): void {
    const entry = this.entries[Lvt.LINT0];
    if (!(entry & LVT_REMOTE_IRR) || (entry & 0xff) !== vector) return;
    this.entries[Lvt.LINT0] = entry & ~LVT_REMOTE_IRR;
    this.sample(Lvt.LINT0);
  }

  /** Takes up a level that is asserted already. */
  private sample(lvt: number): void {
    const asserted = (lvt === Lvt.LINT0 && this.lint0) || (lvt === Lvt.LINT1 && this.lint1);
    if (!asserted) return;
    const entry = this.entries[lvt];
    if (isLevelSensitive(lvt, entry) || modeOf(entry) === DeliveryMode.EXTINT) this.fire(lvt);
  }
}
